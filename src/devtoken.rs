//! Development tokens: `portcullis token mint` and `portcullis token decode`.
//!
//! A stand-in for an identity provider on a developer's machine. It signs with a key file of its
//! own making, so nothing here weakens a gateway whose trust providers do not name that key.

use std::fs::OpenOptions;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::{Jwk, ThumbprintHash};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use crate::clock::UnixSeconds;
use crate::judge::{crypto, json};
use crate::limits::TOKEN_BYTES_MAX;

/// What `token mint` is asked for.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// `iss`.
    pub issuer: String,
    /// `aud`; one becomes a string, several an array.
    pub audiences: Vec<String>,
    /// `sub`.
    pub subject: String,
    /// Further claims; they may replace any of the standard ones, which is how bad tokens are made.
    pub claims: Vec<(String, Value)>,
    /// Seconds from now to `exp`.
    pub expires_seconds: u64,
}

/// What `token mint --init` wrote.
#[derive(Debug, PartialEq, Eq)]
pub struct Initialised {
    /// The private key (PKCS#8 PEM, mode 0600).
    pub key: PathBuf,
    /// The public key set, for `jwks_file`.
    pub jwks: PathBuf,
}

/// Why a development token could not be made or read.
#[derive(Debug)]
pub enum Fault {
    /// A file could not be read or written; an existing key is never overwritten.
    File(PathBuf, io::Error),
    /// Not a PKCS#8 PEM key for ES256 or EdDSA.
    Key,
    /// `--claim` is not `NAME=JSON`.
    Claim(String),
    /// Not a compact JWS.
    Token,
    /// The system has no randomness, or signing failed.
    Crypto,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Key => f.write_str("not a PKCS#8 PEM key for ES256 or EdDSA"),
            Self::Claim(text) => {
                write!(f, "{text}: a claim is NAME=JSON, for example sub='\"ada\"'")
            }
            Self::Token => f.write_str("not a signed token in compact form"),
            Self::Crypto => f.write_str("the key could not be used"),
        }
    }
}

impl std::error::Error for Fault {}

/// Writes `key.pem` and `jwks.json` into `directory`, which is made if it is not there.
///
/// # Errors
/// [`Fault::File`], also when one of the files is there already.
pub fn init(directory: &Path) -> Result<Initialised, Fault> {
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random)
        .map_err(|_| Fault::Crypto)?;
    let pem = pem(pkcs8.as_ref());
    let key = SigningKey::from_pem(pem.as_bytes())?;
    let jwks = serde_json::to_vec_pretty(&key.jwks()?).map_err(|_| Fault::Crypto)?;
    std::fs::create_dir_all(directory).map_err(|error| Fault::File(directory.into(), error))?;
    let made = Initialised { key: directory.join("key.pem"), jwks: directory.join("jwks.json") };
    write_new(&made.key, pem.as_bytes(), 0o600)?;
    write_new(&made.jwks, &jwks, 0o644)?;
    Ok(made)
}

/// Reads a key file for [`mint`].
///
/// # Errors
/// [`Fault::File`] or [`Fault::Key`].
pub fn read_key(path: &Path) -> Result<SigningKey, Fault> {
    let fault = |error| Fault::File(path.into(), error);
    let file = std::fs::File::open(path).map_err(fault)?;
    // Full capacity at once: a growing buffer would leave unwiped copies of the key behind.
    let mut text = Zeroizing::new(Vec::with_capacity(KEY_FILE_BYTES_MAX));
    file.take(KEY_FILE_BYTES_MAX as u64).read_to_end(&mut text).map_err(fault)?;
    SigningKey::from_pem(&text)
}

/// Reads a `--claim NAME=JSON` argument.
///
/// # Errors
/// [`Fault::Claim`].
pub fn claim(argument: &str) -> Result<(String, Value), Fault> {
    let fault = || Fault::Claim(argument.to_owned());
    let (name, text) = argument.split_once('=').ok_or_else(fault)?;
    let value = serde_json::from_str(text).map_err(|_| fault())?;
    if name.is_empty() { Err(fault()) } else { Ok((name.to_owned(), value)) }
}

/// Signs an RFC 9068 access token: `typ` is `at+jwt`, and `client_id` names this tool unless the
/// request says otherwise.
///
/// # Errors
/// [`Fault::Crypto`].
pub fn mint(key: &SigningKey, request: &Request, now: UnixSeconds) -> Result<String, Fault> {
    crypto::install();
    let mut id = [0; 16];
    SystemRandom::new().fill(&mut id).map_err(|_| Fault::Crypto)?;
    let audience = match request.audiences.as_slice() {
        [one] => json!(one),
        several => json!(several),
    };
    let mut claims = Map::new();
    for (name, value) in [
        ("iss", json!(request.issuer)),
        ("aud", audience),
        ("sub", json!(request.subject)),
        ("client_id", json!(CLIENT_ID)),
        ("iat", json!(now.0)),
        ("exp", json!(now.0.saturating_add(request.expires_seconds))),
        ("jti", json!(URL_SAFE_NO_PAD.encode(id))),
    ] {
        claims.insert(name.to_owned(), value);
    }
    claims.extend(request.claims.iter().cloned());
    let mut header = Header::new(key.algorithm);
    header.typ = Some("at+jwt".to_owned());
    header.kid = Some(key.id()?);
    jsonwebtoken::encode(&header, &claims, &key.encoding).map_err(|_| Fault::Crypto)
}

/// Shows header and claims of a token as JSON text. Nothing is verified, and the text says so.
///
/// # Errors
/// [`Fault::Token`].
pub fn decode(token: &str) -> Result<String, Fault> {
    let token = token.trim();
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Fault::Token);
    }
    let mut parts = token.split('.');
    let (Some(header), Some(claims), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Fault::Token);
    };
    let read = |part: &str| {
        let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| Fault::Token)?;
        json::object(&bytes).map_err(|_| Fault::Token)
    };
    let shown = json!({
        "header": read(header)?,
        "claims": read(claims)?,
        "signature": "not verified",
    });
    serde_json::to_string_pretty(&shown).map_err(|_| Fault::Token)
}

/// A private key with its public half. Wiped when dropped; has no `Debug`.
pub struct SigningKey {
    algorithm: Algorithm,
    encoding: EncodingKey,
    jwk: Jwk,
}

impl SigningKey {
    /// Reads PKCS#8 PEM: P-256 or Ed25519.
    ///
    /// # Errors
    /// [`Fault::Key`].
    pub fn from_pem(text: &[u8]) -> Result<Self, Fault> {
        let der = unpem(text)?;
        if let Ok(pair) =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der, &SystemRandom::new())
        {
            // SEC 1 §2.3.3: 0x04, then the coordinates.
            let point = pair.public_key().as_ref().get(1..).ok_or(Fault::Key)?;
            let (x, y) = point.split_at_checked(point.len() / 2).ok_or(Fault::Key)?;
            return Ok(Self {
                algorithm: Algorithm::ES256,
                encoding: EncodingKey::from_ec_der(&der),
                jwk: jwk(&json!({
                    "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig",
                    "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
                }))?,
            });
        }
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).map_err(|_| Fault::Key)?;
        Ok(Self {
            algorithm: Algorithm::EdDSA,
            encoding: EncodingKey::from_ed_der(&der),
            jwk: jwk(&json!({
                "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig",
                "x": URL_SAFE_NO_PAD.encode(pair.public_key().as_ref()),
            }))?,
        })
    }

    /// The key set document with this key alone.
    ///
    /// # Errors
    /// [`Fault::Crypto`].
    pub fn jwks(&self) -> Result<Value, Fault> {
        let mut jwk = self.jwk.clone();
        jwk.common.key_id = Some(self.id()?);
        Ok(json!({ "keys": [jwk] }))
    }

    /// RFC 7638 thumbprint: the same key has the same id wherever it is minted with.
    fn id(&self) -> Result<String, Fault> {
        crypto::install();
        self.jwk.thumbprint(ThumbprintHash::SHA256).map_err(|_| Fault::Crypto)
    }
}

fn jwk(members: &Value) -> Result<Jwk, Fault> {
    serde_json::from_value(members.clone()).map_err(|_| Fault::Key)
}

/// Never replaces a file: a lost development key is cheap, an overwritten real one is not.
fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Fault> {
    let fault = |error| Fault::File(path.into(), error);
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(fault)?;
    file.write_all(bytes).map_err(fault)
}

/// RFC 7468 §10.
fn pem(der: &[u8]) -> Zeroizing<String> {
    let body = Zeroizing::new(STANDARD.encode(der));
    let mut text = Zeroizing::new(String::with_capacity(body.len() * 2 + 64));
    text.push_str(PEM_BEGIN);
    text.push('\n');
    for (at, character) in body.chars().enumerate() {
        if at > 0 && at % PEM_LINE == 0 {
            text.push('\n');
        }
        text.push(character);
    }
    text.push('\n');
    text.push_str(PEM_END);
    text.push('\n');
    text
}

fn unpem(text: &[u8]) -> Result<Zeroizing<Vec<u8>>, Fault> {
    let text = std::str::from_utf8(text).map_err(|_| Fault::Key)?;
    let (_, rest) = text.split_once(PEM_BEGIN).ok_or(Fault::Key)?;
    let (body, _) = rest.split_once(PEM_END).ok_or(Fault::Key)?;
    let mut packed = Zeroizing::new(String::with_capacity(body.len()));
    packed.extend(body.chars().filter(|character| !character.is_ascii_whitespace()));
    STANDARD.decode(packed.as_bytes()).map(Zeroizing::new).map_err(|_| Fault::Key)
}

const PEM_BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const PEM_END: &str = "-----END PRIVATE KEY-----";
const PEM_LINE: usize = 64;
const KEY_FILE_BYTES_MAX: usize = 16 * 1024;
const CLIENT_ID: &str = "portcullis-token-mint";

#[cfg(test)]
mod tests;
