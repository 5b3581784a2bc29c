//! A token and the key that it verifies with, always the same: a signature takes more or fewer
//! steps to verify by what its numbers are, which would show as a spread. The private key was
//! thrown away; issued and expiring around the rig's own time.

pub(crate) const TOKEN: &str = concat!(
    "eyJ0eXAiOiJhdCtqd3QiLCJhbGciOiJFUzI1NiIsImtpZCI6Inl3RkJ5LW4zVlpSLU1UOVB6NThaN1lCZjZX",
    "Q1dZcTdBNEpCNVcwalVaVVkifQ.eyJpc3MiOiJodHRwczovL2lkcC5leGFtcGxlLmNvbSIsImF1ZCI6Imh0d",
    "HBzOi8vZ3cuZXhhbXBsZS5jb20vbWNwL2dpdGh1YiIsInN1YiI6IjAwdTFhMmIzYzRkNWU2ZjdnOGg5IiwiY",
    "2xpZW50X2lkIjoicG9ydGN1bGxpcy10b2tlbi1taW50IiwiaWF0IjoxODAwMDAwMDAwLCJleHAiOjE4MDAwM",
    "DM2MDAsImp0aSI6IkFBRUNBd1FGQmdjSUNRb0xEQTBPRHciLCJlbWFpbCI6ImFkYUBleGFtcGxlLmNvbSIsI",
    "mdyb3VwcyI6WyJlbmdpbmVlcmluZyIsInN0YWZmIl19.5WkL4nV7VHSnXsMEHc_TkNmyQgSDg5nHNr78n_DR",
    "Heopl_BXawiHHwRMsIN2weShUNURhUVPb4rmZsUCPMEI1A",
);

pub(crate) const KEY_SET: &str = concat!(
    r#"{"keys":[{"use":"sig","alg":"ES256","#,
    r#""kid":"ywFBy-n3VZR-MT9Pz58Z7YBf6WCWYq7A4JB5W0jUZUY","#,
    r#""kty":"EC","crv":"P-256","#,
    r#""x":"dIdnJMKWk1NDGn5knCnPk_Ua1NgNhzE38WVzlxXGDo8","#,
    r#""y":"6YhOt6bCeT2ZYBnjPYh3uTBk1B4Kc-ee-2ssWKahHfU"}]}"#,
);
