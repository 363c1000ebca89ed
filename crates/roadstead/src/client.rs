//! The HTTPS client of a provider. Whom it talks to is decided by a key, not by a name: the one that the Registry has.

mod operate;

use std::{
    marker::PhantomData,
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use ::provider::wire::{
    self, ApiError, Attestation, ImageParts, Info, LeaseStatus, LogLine, Nonce, QuoteRequest,
    QuoteResponse, SealedKey, SignIn,
};
use alloy::{
    primitives::{Address, B256},
    signers::{SignerSync as _, local::PrivateKeySigner},
};
use bytes::Bytes;
use chain::{Chain, abi::IRegistry};
use futures::{Stream, StreamExt as _, stream::BoxStream};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use rustls::{
    DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::WebPkiSupportedAlgorithms,
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use seal::{SealingPublicKey, attest::Subject};
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;
use tokio_tungstenite::tungstenite;

pub(crate) use self::operate::{Import, Socket, TarStream, broken};
use crate::output;

/// How long a provider may take for a short answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a provider's hardware may take for a report.
pub(crate) const ATTEST_PATIENCE: Duration = Duration::from_secs(30);

/// After how long it is asked again while it makes somebody else's.
pub(crate) const BUSY_PAUSE: Duration = Duration::from_millis(300);

/// How long a provider may take to unpack an image.
const LOAD_PATIENCE: Duration = Duration::from_secs(600);

/// The longest answer that is read.
const MAX_ANSWER: usize = 1 << 20;

/// The longest line that is read.
const MAX_LINE: usize = 1 << 20;

/// A provider that did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// Its listing has no usable address.
    #[error("its endpoint {0:?} is not an address such as https://host:port")]
    Endpoint(String),
    /// This program could not set up TLS.
    #[error("TLS could not be set up")]
    Tls(#[source] rustls::Error),
    /// The HTTP client could not be made.
    #[error("the HTTP client could not be set up")]
    Http(#[source] reqwest::Error),
    /// It did not answer, or broke off.
    #[error("the provider does not answer")]
    Unreachable(#[source] reqwest::Error),
    /// It did not answer in time.
    #[error("the provider does not answer in time")]
    Late,
    /// Somebody else answers.
    #[error(transparent)]
    WrongKey(WrongKey),
    /// It refused.
    #[error("{why}")]
    Refused {
        /// The HTTP status.
        status: StatusCode,
        /// What it says.
        why: String,
    },
    /// Its answer is not what the protocol says.
    #[error("its answer is not one of the protocol")]
    Answer(#[source] serde_json::Error),
    /// Its answer does not end.
    #[error("its answer is longer than {0} bytes")]
    TooLong(usize),
    /// The wallet could not sign.
    #[error("the sign-in could not be signed")]
    Sign(#[source] alloy::signers::Error),
    /// What goes both ways broke off.
    #[error("the connection to the provider broke")]
    Broken(#[source] Box<tungstenite::Error>),
    /// What was to be sent could not be read.
    #[error("what was to be sent could not be read")]
    Read(#[from] std::io::Error),
}

/// A provider, without anybody signed in.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    /// The provider.
    pub(crate) address: Address,
    /// The key to which secrets and app keys are sealed.
    pub(crate) seal_key: SealingPublicKey,
    url: Url,
    key: B256,
    http: reqwest::Client,
}

/// A provider, with the wallet that signs in.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    endpoint: Endpoint,
    chain_id: u64,
    signer: PrivateKeySigner,
    /// The app as whose keeper it asks for what is not its own.
    keeps: Option<u64>,
    token: Arc<Mutex<Option<Token>>>,
}

#[derive(Clone)]
struct Token {
    bearer: String,
    until: Instant,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("until", &self.until).finish_non_exhaustive()
    }
}

impl Endpoint {
    /// The provider at `address`, as the Registry lists it.
    pub(crate) fn new(address: Address, listing: &IRegistry::Listing) -> Result<Self, ClientError> {
        let bad = || ClientError::Endpoint(output::tame(&listing.endpoint));
        let url: Url = listing.endpoint.parse().map_err(|_err| bad())?;
        if url.scheme() != "https" || !url.has_host() || !url.username().is_empty() {
            return Err(bad());
        }
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(
                tls(Expected::Key(listing.tlsKey)).map_err(ClientError::Tls)?,
            )
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(PATIENCE)
            .build()
            .map_err(ClientError::Http)?;
        let seal_key = SealingPublicKey(listing.sealKey.0);
        Ok(Self { address, seal_key, url, key: listing.tlsKey, http })
    }

    /// What anybody may know of it.
    pub(crate) async fn info(&self) -> Result<Info, ClientError> {
        self.json(self.request(Method::GET, "/v1/info").timeout(PATIENCE)).await
    }

    /// What its machine proves about a nonce. It makes one report at a time, so it may have to be asked again.
    pub(crate) async fn attestation(&self, nonce: B256) -> Result<Attestation, ClientError> {
        let end = Instant::now() + ATTEST_PATIENCE;
        loop {
            let request = self.request(Method::GET, "/v1/attestation").query(&[("nonce", nonce)]);
            match self.json(request.timeout(ATTEST_PATIENCE)).await {
                Err(ClientError::Refused { status: StatusCode::TOO_MANY_REQUESTS, .. })
                    if Instant::now() < end =>
                {
                    tokio::time::sleep(BUSY_PAUSE).await;
                }
                answer => return answer,
            }
        }
    }

    /// What evidence about a nonce has to be about: the keys that the Registry has.
    pub(crate) fn subject(&self, chain_id: u64, nonce: [u8; 32]) -> Subject {
        Subject {
            nonce,
            chain_id,
            provider: self.address.into(),
            sealing_key: self.seal_key,
            tls_key: self.key.0,
            visit: None,
        }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let mut url = self.url.clone();
        url.set_path(path);
        self.http.request(method, url)
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = body(response).await?;
        let why = serde_json::from_slice(&body).map(|ApiError { error }| output::tame(&error));
        let why = why.unwrap_or_else(|_err| format!("it answers with the HTTP status {status}"));
        Err(ClientError::Refused { status, why })
    }

    async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, ClientError> {
        let response = self.send(request).await?;
        let body = body(response).await?;
        serde_json::from_slice(&body).map_err(ClientError::Answer)
    }
}

pub(crate) async fn body(response: Response) -> Result<Vec<u8>, ClientError> {
    let mut chunks = response.bytes_stream();
    let mut body = Vec::new();
    while let Some(chunk) = chunks.next().await {
        body.extend_from_slice(&chunk.map_err(unreachable)?);
        if body.len() > MAX_ANSWER {
            return Err(ClientError::TooLong(MAX_ANSWER));
        }
    }
    Ok(body)
}

pub(crate) fn unreachable(err: reqwest::Error) -> ClientError {
    if err.is_timeout() {
        return ClientError::Late;
    }
    match WrongKey::of(&err) {
        Some(wrong) => ClientError::WrongKey(wrong),
        // The URL is in the listing; the message is long enough without it.
        None => ClientError::Unreachable(err.without_url()),
    }
}

impl Client {
    /// The provider behind `endpoint`, for the wallet of `signer`; it signs in when it has to.
    pub(crate) fn new(endpoint: Endpoint, chain: &Chain, signer: PrivateKeySigner) -> Self {
        Self { endpoint, chain_id: chain.id(), signer, keeps: None, token: Arc::default() }
    }

    /// The same, which asks as the keeper of an app.
    pub(crate) fn keeping(self, app: Option<u64>) -> Self {
        Self { keeps: app, ..self }
    }

    /// Asks for a quote.
    pub(crate) async fn quote(&self, wish: &QuoteRequest) -> Result<QuoteResponse, ClientError> {
        let ask = || self.endpoint.request(Method::POST, "/v1/quotes").json(wish).timeout(PATIENCE);
        self.json(ask).await
    }

    /// How far a lease is, of this wallet's or of the app that it keeps.
    pub(crate) async fn status(&self, lease: u64) -> Result<LeaseStatus, ClientError> {
        let path = format!("/v1/leases/{lease}");
        let query: Vec<_> = self.keeps.iter().map(|app| ("app", app.to_string())).collect();
        self.json(|| self.asking(Method::GET, &path, &query).timeout(PATIENCE)).await
    }

    /// Whom it asks.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Sends the key of an app for a start that asks for it.
    pub(crate) async fn unlock(&self, lease: u64, key: &SealedKey) -> Result<(), ClientError> {
        let path = format!("/v1/leases/{lease}/key");
        let query: Vec<_> = self.keeps.iter().map(|app| ("app", app.to_string())).collect();
        let ask = || self.asking(Method::PUT, &path, &query).json(key).timeout(PATIENCE);
        self.send(ask).await.map(drop)
    }

    /// What the pod of a lease writes.
    pub(crate) async fn logs(
        &self,
        lease: u64,
        service: Option<&str>,
        follow: bool,
        tail: Option<u32>,
        since: Option<u64>,
    ) -> Result<Lines<LogLine>, ClientError> {
        let mut query: Vec<(&str, String)> = vec![("follow", follow.to_string())];
        query.extend(service.map(|service| ("service", service.to_owned())));
        query.extend(tail.map(|tail| ("tail", tail.to_string())));
        query.extend(since.map(|since| ("since", since.to_string())));
        self.lines(&format!("/v1/leases/{lease}/logs"), &query).await
    }

    async fn lines<T>(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<Lines<T>, ClientError> {
        let response = self.send(|| self.asking(Method::GET, path, query)).await?;
        let chunks = response.bytes_stream().boxed();
        Ok(Lines { chunks, rest: Vec::new(), of: PhantomData })
    }

    fn asking(&self, method: Method, path: &str, query: &[(&str, String)]) -> RequestBuilder {
        let mut url = self.endpoint.url.clone();
        url.set_path(path);
        url.query_pairs_mut().extend_pairs(query);
        self.endpoint.http.request(method, url)
    }

    /// Whether the provider has a blob.
    pub(crate) async fn has_blob(&self, digest: &str) -> Result<bool, ClientError> {
        let path = format!("/v1/blobs/{digest}");
        let ask = || self.endpoint.request(Method::HEAD, &path).timeout(PATIENCE);
        match self.send(ask).await {
            Ok(_) => Ok(true),
            Err(ClientError::Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(false),
            Err(err) => Err(err),
        }
    }

    /// Sends a blob of `size` bytes; `open` gives its bytes, again if they have to be sent twice.
    pub(crate) async fn put_blob<S>(
        &self,
        digest: &str,
        size: u64,
        open: impl Fn() -> S,
    ) -> Result<(), ClientError>
    where
        S: Stream<Item = std::io::Result<Bytes>> + Send + 'static,
    {
        let path = format!("/v1/blobs/{digest}");
        self.send(|| {
            self.endpoint
                .request(Method::PUT, &path)
                .header(reqwest::header::CONTENT_LENGTH, size)
                .body(reqwest::Body::wrap_stream(open()))
        })
        .await?;
        Ok(())
    }

    /// Has the provider make an image of blobs that it has.
    pub(crate) async fn put_image(&self, id: &str, parts: &ImageParts) -> Result<(), ClientError> {
        let path = format!("/v1/images/{id}");
        self.send(|| self.endpoint.request(Method::PUT, &path).json(parts).timeout(LOAD_PATIENCE))
            .await?;
        Ok(())
    }

    async fn json<T: DeserializeOwned>(
        &self,
        build: impl Fn() -> RequestBuilder,
    ) -> Result<T, ClientError> {
        let response = self.send(build).await?;
        let body = body(response).await?;
        serde_json::from_slice(&body).map_err(ClientError::Answer)
    }

    /// Sends a request as the wallet. A provider that was restarted has forgotten who was signed in, so a refused token
    /// is worth one more sign-in.
    async fn send(&self, build: impl Fn() -> RequestBuilder) -> Result<Response, ClientError> {
        let first = self.endpoint.send(build().bearer_auth(self.token().await?)).await;
        match first {
            Err(ClientError::Refused { status: StatusCode::UNAUTHORIZED, .. }) => {
                *self.token.lock().await = None;
                self.endpoint.send(build().bearer_auth(self.token().await?)).await
            }
            other => other,
        }
    }

    /// The token of a session that lasts for a while yet.
    async fn token(&self) -> Result<String, ClientError> {
        let mut token = self.token.lock().await;
        if let Some(known) = token.as_ref().filter(|known| known.until > Instant::now()) {
            return Ok(known.bearer.clone());
        }
        let fresh = self.sign_in().await?;
        let bearer = fresh.bearer.clone();
        *token = Some(fresh);
        Ok(bearer)
    }

    async fn sign_in(&self) -> Result<Token, ClientError> {
        let endpoint = &self.endpoint;
        let ask = endpoint.request(Method::GET, "/v1/nonce").timeout(PATIENCE);
        let Nonce { nonce } = endpoint.json(ask).await?;
        let (wallet, provider) = (self.signer.address(), endpoint.address);
        let message = wire::sign_in_message(wallet, provider, self.chain_id, &nonce);
        let signature =
            self.signer.sign_message_sync(message.as_bytes()).map_err(ClientError::Sign)?;
        let sign_in = SignIn { message, signature: signature.as_bytes().into() };
        let ask = endpoint.request(Method::POST, "/v1/session").json(&sign_in).timeout(PATIENCE);
        let session: wire::Session = endpoint.json(ask).await?;
        // Half of its life is kept for what is begun with it.
        let until = Instant::now() + Duration::from_secs(session.expires_in / 2);
        Ok(Token { bearer: session.token, until })
    }
}

/// Lines of JSON, as they arrive.
pub(crate) struct Lines<T> {
    chunks: BoxStream<'static, reqwest::Result<Bytes>>,
    rest: Vec<u8>,
    of: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Lines<T> {
    /// The next line; `None` when the provider has no more.
    pub(crate) async fn next(&mut self) -> Result<Option<T>, ClientError> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return serde_json::from_slice(&line).map(Some).map_err(ClientError::Answer);
            }
            if self.rest.len() > MAX_LINE {
                return Err(ClientError::TooLong(MAX_LINE));
            }
            match self.chunks.next().await {
                Some(chunk) => {
                    let chunk = chunk.map_err(unreachable)?;
                    self.rest.extend_from_slice(&chunk);
                }
                None => return Ok(None),
            }
        }
    }
}

/// Which key the other side is to have.
#[derive(Debug, Clone)]
pub(crate) enum Expected {
    /// This.
    Key(B256),
    /// Whichever: it is written down, and judged later.
    Any(SeenKeys),
}

/// The keys that were shown, in the order of the connections.
#[derive(Debug, Clone, Default)]
pub(crate) struct SeenKeys(Arc<std::sync::Mutex<Vec<B256>>>);

impl SeenKeys {
    fn add(&self, key: B256) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(key);
    }

    /// The key of all connections: none where there was no TLS. Nothing where they had different ones.
    pub(crate) fn one(&self) -> Option<Option<B256>> {
        let keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = keys.first().copied();
        keys.iter().all(|key| Some(*key) == first).then_some(first)
    }
}

/// TLS for which a certificate is nothing but the carrier of a key.
pub(crate) fn tls(expected: Expected) -> Result<rustls::ClientConfig, rustls::Error> {
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let pinned = Pinned { expected, algorithms: ring.signature_verification_algorithms };
    Ok(rustls::ClientConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(pinned))
        .with_no_client_auth())
}

/// Takes the certificate with this key, whatever else is in it, and makes sure that the other side has the key.
#[derive(Debug)]
struct Pinned {
    expected: Expected,
    algorithms: WebPkiSupportedAlgorithms,
}

/// The other side is somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "somebody else answers at its address: the key there is {got}, and the Registry has {wanted}"
)]
pub(crate) struct WrongKey {
    wanted: B256,
    got: B256,
}

impl WrongKey {
    /// What `Pinned` said, from below all that was put around it.
    fn of(err: &(dyn std::error::Error + 'static)) -> Option<Self> {
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(err);
        while let Some(err) = next {
            // An I/O error is not the source of what it carries.
            let carried = err.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
            let found = match carried {
                Some(carried) => carried.downcast_ref::<rustls::Error>(),
                None => err.downcast_ref::<rustls::Error>(),
            };
            if let Some(rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other))) =
                found
            {
                return other.0.downcast_ref::<Self>().copied();
            }
            next = match carried {
                Some(carried) => Some(carried),
                None => err.source(),
            };
        }
        None
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = webpki::EndEntityCert::try_from(end_entity)
            .map_err(|_err| rustls::CertificateError::BadEncoding)?;
        let spki = certificate.subject_public_key_info();
        let got = B256::from_slice(&Sha256::digest(&*spki));
        let wanted = match &self.expected {
            Expected::Any(seen) => {
                seen.add(got);
                return Ok(ServerCertVerified::assertion());
            }
            Expected::Key(key) if *key == got => return Ok(ServerCertVerified::assertion()),
            Expected::Key(key) => *key,
        };
        let wrong = WrongKey { wanted, got };
        Err(rustls::CertificateError::Other(rustls::OtherError(Arc::new(wrong))).into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::PublicKeyData as _;

    use super::*;

    #[test]
    fn a_certificate_is_taken_for_its_key_alone() {
        let key = rcgen::KeyPair::generate().unwrap();
        let spki = B256::from_slice(&Sha256::digest(key.subject_public_key_info()));
        let ring = rustls::crypto::ring::default_provider();
        let verify = |certificate: &CertificateDer<'_>, wanted: B256| {
            let algorithms = ring.signature_verification_algorithms;
            let name = ServerName::try_from("another.example").unwrap();
            let later = UnixTime::since_unix_epoch(Duration::from_secs(99_999_999_999));
            Pinned { expected: Expected::Key(wanted), algorithms }.verify_server_cert(
                certificate,
                &[],
                &name,
                &[],
                later,
            )
        };
        let make = |key: &rcgen::KeyPair| {
            let params = rcgen::CertificateParams::new(vec!["one.example".to_owned()]).unwrap();
            params.self_signed(key).unwrap().der().clone()
        };
        verify(&make(&key), spki).unwrap();
        let other = make(&rcgen::KeyPair::generate().unwrap());
        let err = verify(&other, spki).unwrap_err();
        assert!(matches!(
            err,
            rustls::Error::InvalidCertificate(rustls::CertificateError::Other(_))
        ));
        verify(&CertificateDer::from(vec![1, 2, 3]), spki).unwrap_err();
    }

    #[test]
    fn only_https_addresses_are_talked_to() {
        let endpoint = |url: &str| {
            let listing = IRegistry::Listing { endpoint: url.into(), ..Default::default() };
            Endpoint::new(Address::ZERO, &listing)
        };
        endpoint("https://127.0.0.1:8443").unwrap();
        for bad in ["", "http://127.0.0.1", "https://", "https://me@host", "file:///etc", "x"] {
            assert!(matches!(endpoint(bad), Err(ClientError::Endpoint(_))), "{bad}");
        }
    }
}
