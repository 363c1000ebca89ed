//! What goes over the wire between a publisher and a provider: HTTP and JSON, documented in `docs/protocol.md`.

pub mod bids;
mod operate;

use alloy::primitives::{Address, B256, Bytes};
use protocol::{
    amount::{Amount, Rate},
    pod::{PodHash, Port},
    quote::Quote,
    resources::{self, BitRate, PriceBreakdown, PriceList, Resources},
};
use seal::{
    Envelope, SealingPublicKey, SenderPublicKey,
    attest::{Connection, Evidence, Unattested},
};
use serde::{Deserialize, Serialize};

use crate::config::EgressLimits;

pub use self::operate::{
    BEGUN, EOF, ExecRequest, FromProgram, Happening, Hold, Imported, LeaseEvent, PathStat, STDERR,
    STDOUT, ServiceStats, TerminalSize, ToProgram, VolumeStatus,
};

/// `GET /v1/info`: what anybody may know.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Info {
    /// The provider's address.
    pub provider: Address,
    /// The chain that it works on.
    pub chain_id: u64,
    /// The Leases contract that it works with.
    pub leases: Address,
    /// Where it is.
    pub region: String,
    /// The key to which secrets are sealed; the Registry has it too, and is the one to believe.
    pub seal_key: SealingPublicKey,
    /// Its price list.
    pub prices: PriceList,
    /// What it rents out.
    pub capacity: Resources,
    /// What of that is free now.
    pub free: Resources,
    /// What a pod may send to the world, and what of that is included.
    #[serde(default)]
    pub egress: EgressTerms,
    /// How many leases it runs.
    pub running: usize,
    /// What it can run a service with, as the pod file names it under `runtime`.
    #[serde(default)]
    pub runtimes: Vec<String>,
    /// Whether root in a container is nobody on its machine.
    #[serde(default)]
    pub user_namespaces: bool,
    /// The version of this program.
    pub version: String,
}

/// What a pod may send to the world.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressTerms {
    /// How fast at most, in bits per second, answers to visitors included.
    pub rate: BitRate,
    /// How much in 30 days a pod may that asks for nothing, in bytes, answers to visitors apart. It costs nothing.
    pub included: resources::Bytes,
    /// How much a pod may ask for: what it asks beyond what is included is charged.
    pub most: resources::Bytes,
}

impl From<EgressLimits> for EgressTerms {
    fn from(EgressLimits { rate, included, most }: EgressLimits) -> Self {
        Self { rate, included, most }
    }
}

/// `GET /v1/attestation?nonce=…`: what the provider's machine proves about the nonce (32 bytes), its chain, its address, its
/// sealing key and its TLS key, as `docs/protocol.md` puts them together.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attestation {
    /// What hardware signed.
    Evidence(Evidence),
    /// The wallet's word, which proves nothing of what runs there.
    Unattested(Unattested),
}

/// Where a provider's ingress answers itself, at each host that it serves, with a [`ServedHost`].
pub const WELL_KNOWN: &str = "/.well-known/roadstead";

/// `GET /.well-known/roadstead?nonce=…` of a host: who serves it, and for which lease. With a nonce (32 bytes) it also has what
/// the machine proves about that, all of the above, the provider's keys and the key of the very connection that it is asked on.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServedHost {
    /// The provider's address.
    pub provider: Address,
    /// The chain that it works on.
    pub chain_id: u64,
    /// The Leases contract that it works with.
    pub leases: Address,
    /// The lease that the host is served for.
    pub lease: u64,
    /// The pod that serves it.
    pub pod: PodHash,
    /// What was shown on the connection.
    pub connection: Connection,
    /// Absent where no nonce was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attestation: Option<Attestation>,
}

/// `POST /v1/session`: a signed EIP-4361 message.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignIn {
    /// The message, letter for letter.
    pub message: String,
    /// Its EIP-191 signature.
    pub signature: Bytes,
}

/// The answer to `GET /v1/nonce`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Nonce {
    /// What the message has to contain.
    pub nonce: String,
}

/// The answer to a sign-in.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    /// To be sent as `Authorization: Bearer …`.
    pub token: String,
    /// For how many seconds it lasts.
    pub expires_in: u64,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("expires_in", &self.expires_in).finish_non_exhaustive()
    }
}

/// What a publisher wishes of a lease's insurance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlaTerms {
    /// What of the provider's bond backs the lease.
    pub coverage: Amount,
    /// Seconds of outage that go without compensation.
    pub grace: u32,
    /// Seconds of outage for which the whole coverage is due.
    pub full: u32,
}

/// `POST /v1/quotes`: what would this cost at yours?
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct QuoteRequest {
    /// The canonical pod, byte for byte as it is hashed.
    pub pod: String,
    /// Who owns the account that is going to pay: the wallet that is signed in, or who lets it act.
    pub owner: Address,
    /// The account's salt.
    pub salt: B256,
    /// The lease to amend; zero for a new one.
    pub lease: u64,
    /// The wished insurance.
    pub sla: SlaTerms,
    /// The app as whose keeper the wallet asks, where it neither owns the account nor is an agent for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keeps: Option<Keeps>,
    /// The pod's secrets, sealed to the provider. Needed before the lease opens, not for the price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<Envelope>,
}

/// What a keeper shows to be asked for: the app, and that the pod is one of those that it may run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keeps {
    /// The app's number in Apps.
    pub app: u64,
    /// The pod's proof against the root of the app's pods; empty where that is the pod's own hash.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub proof: Vec<B256>,
}

/// A price that holds until the quote expires.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QuoteResponse {
    /// The quote, as Leases takes it.
    pub quote: Quote,
    /// The provider's EIP-712 signature.
    pub signature: Bytes,
    /// The pod's hash, as the provider computed it.
    pub pod: PodHash,
    /// What the rate is made of.
    pub price: PriceBreakdown,
    /// Pushed images that the provider does not have yet.
    pub missing_images: Vec<String>,
    /// How the provider can be trusted with it: never attested in this version.
    pub attestation: String,
    /// For how many seconds volumes are kept after the lease: as long as the lease ran, and no longer than this.
    #[serde(default)]
    pub volume_retention: u64,
}

impl QuoteResponse {
    /// The quote's rate.
    pub fn rate(&self) -> Rate {
        Rate(self.quote.rate)
    }
}

/// `PUT /v1/images/{id}`: the parts of an image, all of which were uploaded as blobs.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageParts {
    /// The digests of the layers' uncompressed tars, lowest first.
    pub layers: Vec<String>,
}

/// How far a lease's pod is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The provider has not looked at it yet.
    Seen,
    /// Images are pulled or unpacked.
    Fetching,
    /// It waits for the key of its encrypted images.
    Locked,
    /// Containers start, or their health is waited for.
    Starting,
    /// It runs and is healthy.
    Running,
    /// It runs, and a health check fails.
    Unhealthy,
    /// It is frozen until the account is topped up.
    Paused,
    /// It is stopped at its payer's wish, for a while.
    Held,
    /// It could not be started; the lease is being closed.
    Failed,
    /// The lease is closed, the pod is being removed or is gone.
    Closed,
}

/// `GET /v1/leases/{id}`: for the payer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaseStatus {
    /// The lease.
    pub lease: u64,
    /// How far it is.
    pub phase: Phase,
    /// The pod that this is about: after an amendment that the provider has not seen yet, the former one.
    pub pod: PodHash,
    /// What went wrong last, if something did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What its start waits for, if that is the key of its encrypted images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_request: Option<KeyRequest>,
    /// Where its HTTP hosts answer.
    pub urls: Vec<String>,
    /// Where its public ports are.
    #[serde(default)]
    pub ports: Vec<PublicPort>,
    /// What its publisher should know of its hosts and ports, in sentences.
    #[serde(default)]
    pub notes: Vec<String>,
    /// What it sent to the world, once that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<EgressStatus>,
    /// Its containers.
    pub services: Vec<ServiceStatus>,
}

impl LeaseStatus {
    /// One of which no more is known.
    pub(crate) fn new(lease: u64, phase: Phase, pod: PodHash) -> Self {
        let (urls, ports, notes, services) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (message, key_request, egress) = (None, None, None);
        Self { lease, phase, pod, message, key_request, urls, ports, notes, egress, services }
    }
}

/// A port of a service that the world reaches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicPort {
    /// Where the world reaches it: `host:number`.
    pub address: String,
    /// Where the service listens: `5432/tcp`.
    pub port: Port,
    /// The service.
    pub service: String,
}

/// What a lease sent to the world, answers to visitors apart, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EgressStatus {
    /// What it was in its current 30 days.
    pub sent: u64,
    /// What it may be in them; what is beyond that is dropped.
    pub total: u64,
    /// When they end, in Unix seconds.
    pub until: u64,
}

/// A start that waits for the key of its pod's encrypted images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRequest {
    /// What the key is sealed for, besides what everybody knows: it is taken once, for ten minutes at most.
    pub nonce: seal::Nonce,
    /// The pod that is to start.
    pub pod: PodHash,
}

/// `PUT /v1/leases/{id}/key`: the key of an app, for the start that asks for it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedKey {
    /// The nonce of the request.
    pub nonce: seal::Nonce,
    /// The key, sealed by `sender` for the lease, the pod and the nonce.
    pub key: Envelope,
    /// Who sealed it.
    pub sender: SenderPublicKey,
    /// The word of the wallet that is signed in that the sender is its own: an EIP-191 signature of
    /// [`SenderPublicKey::claim`].
    pub claim: Bytes,
}

/// One service of a pod.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceStatus {
    /// Its name in the pod file.
    pub name: String,
    /// Docker's word for its state: running, paused, exited, …
    pub state: String,
    /// Docker's word for its health, where it has a health check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<String>,
    /// How often it was restarted.
    pub restarts: u64,
}

/// One line of `GET /v1/leases/{id}/logs`, which answers with one such JSON object per line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// The service that wrote it.
    pub service: String,
    /// Where to.
    pub stream: LogStream,
    /// When, as RFC 3339.
    pub time: String,
    /// What, without the line's end.
    pub line: String,
}

/// Where a line was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What comes with every status of 400 and above.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ApiError {
    /// What is wrong and what to do.
    pub error: String,
}

/// The domain of the sign-in messages of `provider`: the same under whatever name it is reached.
pub fn sign_in_domain(provider: Address) -> String {
    format!("{provider:#x}.provider.roadstead")
}

/// The EIP-4361 message by which `wallet` signs in at `provider`.
pub fn sign_in_message(wallet: Address, provider: Address, chain_id: u64, nonce: &str) -> String {
    let domain = sign_in_domain(provider);
    let now = std::time::SystemTime::now();
    let issued = rfc3339(now);
    let expires = rfc3339(now + std::time::Duration::from_secs(120));
    let wallet = wallet.to_checksum(None);
    format!(
        "{domain} wants you to sign in with your Ethereum account:\n{wallet}\n\n\
         See and operate my leases at this provider.\n\n\
         URI: https://{domain}\nVersion: 1\nChain ID: {chain_id}\nNonce: {nonce}\n\
         Issued At: {issued}\nExpiration Time: {expires}"
    )
}

fn rfc3339(time: std::time::SystemTime) -> String {
    let time = siwe::TimeStamp::from(::time::OffsetDateTime::from(time));
    time.to_string()
}
