//! Cases of the groups H, T and M that need a part of the product that is not built yet, or that
//! are proved elsewhere. They stand here so that none is silently missing.

#[test]
#[ignore = "H31: the eighty HTTP Garden payloads need haproxy and nginx beside us; http_body::h31 counts our own"]
fn h31_garden_payloads() {
    panic!("needs the payloads and both proxies");
}

#[test]
#[ignore = "T20: Wycheproof's vectors sign what is no JWT; judge::jwt verifies them where the signature is"]
fn t20_wycheproof() {
    panic!("a gateway cannot be asked to verify a bare JWS");
}

#[test]
#[ignore = "T23: DPoP proofs are not judged yet; until then every token with cnf is refused (identity::t22_t23)"]
fn t23_dpop_proofs() {
    panic!("needs DPoP");
}
