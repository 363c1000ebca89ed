//! `roadstead verify`: what runs behind an app's URL, and whether the connection to it ends there.
//!
//! Whoever answers at the URL says all that is checked here. It gets a number, and nothing else. What it says counts as far as
//! the chain says the same, and the provider's hardware or wallet signed it together with the key that this program itself
//! saw. Who stands in between has another key, or reads and changes what is not encrypted, which is then said.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use ::provider::wire::{ApiError, ServedHost, WELL_KNOWN};
use alloy::primitives::{Address, B256};
use anyhow::{Context as _, bail, ensure};
use chain::Chain;
use protocol::{
    lease::State,
    pod::{Pod, PodHash},
};
use reqwest::{StatusCode, Url};
use seal::{
    SealingPublicKey,
    attest::{Connection, Subject, Visit},
};

use crate::{
    attest::{Found, Wanted},
    client::{self, SeenKeys},
    deploy, output,
    settings::Settings,
};

/// How long whoever answers may take to be connected to.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is looked at, and what is asked for.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The app's URL; whatever follows the host is not looked at
    url: String,
    /// Ask at this address, instead of where the host's name leads
    #[arg(long, value_name = "IP")]
    address: Option<IpAddr>,
    /// Make sure that this pod runs, and has the host: a file with what `roadstead check --json` has under `pod`
    #[arg(long, value_name = "FILE")]
    pod: Option<PathBuf>,
    #[command(flatten)]
    wanted: Wanted,
}

/// A URL that is no app's, or at which no provider answers.
#[derive(Debug, thiserror::Error)]
enum NotServed {
    #[error("{0:?} is not the URL of an app, such as https://shop.example.org")]
    Url(String),
    #[error("{0} does not answer")]
    Silent(String, #[source] Box<client::ClientError>),
    #[error(
        "what answers at {url} is not the ingress of a provider of this market, which would say who it is; it says {status}{why}"
    )]
    Stranger { url: String, status: StatusCode, why: String },
    #[error("{0} says nothing that the protocol knows")]
    Answer(String, #[source] serde_json::Error),
    #[error(
        "{0} is served for another market: chain {1}, Leases {2}; name its node with --rpc and its contracts with --deployment"
    )]
    OtherMarket(String, u64, Address),
}

/// What a provider says that the chain does not.
#[derive(Debug, thiserror::Error)]
enum Untrue {
    #[error("provider {0} says that it serves {1} for lease {2}, and there is no such lease")]
    NoLease(Address, String, u64),
    #[error("lease {0}, for which {1} is served, is closed: its pod may be another by now")]
    Closed(u64, String),
    #[error("lease {0}, for which {1} is served, is not active yet; try again once it runs")]
    Pending(u64, String),
    #[error("lease {lease} is provider {theirs}'s, and {host} is served for it by {provider}")]
    OtherProvider { lease: u64, host: String, provider: Address, theirs: Address },
    #[error(
        "lease {lease} is for pod {theirs}, and {host} is served by pod {pod}: it is being updated, or its provider runs something else"
    )]
    OtherPod { lease: u64, host: String, pod: PodHash, theirs: PodHash },
    #[error("lease {lease} is for pod {theirs}, and the file is pod {file}")]
    OtherFile { lease: u64, theirs: PodHash, file: PodHash },
    #[error("pod {0} does not have the host {1}: its provider serves something else there")]
    NotItsHost(PodHash, String),
    #[error(
        "somebody stands in between: this connection has the key {seen}, and provider {provider} speaks of {told}"
    )]
    InBetween { provider: Address, seen: String, told: Connection },
}

/// An app's URL.
#[derive(Debug)]
struct Site {
    /// Of the document.
    url: Url,
    /// In lower case, without port and final dot.
    host: String,
}

impl Site {
    fn read(text: &str) -> Result<Self, NotServed> {
        let bad = || NotServed::Url(output::tame(text));
        let mut url: Url = text.parse().map_err(|_err| bad())?;
        let host = url.domain().ok_or_else(bad)?;
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let plain = url.username().is_empty() && url.password().is_none();
        if !plain || !matches!(url.scheme(), "http" | "https") || host.is_empty() {
            return Err(bad());
        }
        url.set_path(WELL_KNOWN);
        url.set_query(None);
        url.set_fragment(None);
        Ok(Self { url, host })
    }

    /// Where to ask, if not where its name leads.
    fn address(&self, said: Option<IpAddr>) -> Option<IpAddr> {
        // Names below localhost are this machine (RFC 6761), whatever name servers say.
        let local = self.host == "localhost" || self.host.ends_with(".localhost");
        said.or_else(|| local.then_some(Ipv4Addr::LOCALHOST.into()))
    }

    /// Asks who serves it; the answer, and the key that was shown for it.
    async fn ask(
        &self,
        address: Option<IpAddr>,
        nonce: [u8; 32],
    ) -> anyhow::Result<(ServedHost, Option<B256>)> {
        let seen = SeenKeys::default();
        let tls = client::tls(client::Expected::Any(seen.clone()))?;
        let mut http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(PATIENCE)
            .timeout(client::ATTEST_PATIENCE);
        if let (Some(address), Some(name)) = (self.address(address), self.url.domain()) {
            http = http.no_proxy().resolve(name, (address, 0).into());
        }
        let http = http.build()?;
        let end = Instant::now() + client::ATTEST_PATIENCE;
        let (status, body) = loop {
            let request = http.get(self.url.clone()).query(&[("nonce", B256::from(nonce))]);
            let silent = |err| NotServed::Silent(self.url.to_string(), Box::new(err));
            let answer = request.send().await.map_err(|err| silent(client::unreachable(err)))?;
            let status = answer.status();
            let body = client::body(answer).await.map_err(silent)?;
            if status != StatusCode::TOO_MANY_REQUESTS || Instant::now() > end {
                break (status, body);
            }
            // It makes one report at a time.
            tokio::time::sleep(client::BUSY_PAUSE).await;
        };
        let url = || self.url.to_string();
        if status != StatusCode::OK {
            let why = serde_json::from_slice(&body);
            let why = why.map(|ApiError { error }| format!(" ({})", output::tame(&error)));
            bail!(NotServed::Stranger { url: url(), status, why: why.unwrap_or_default() });
        }
        let served = serde_json::from_slice(&body).map_err(|err| NotServed::Answer(url(), err))?;
        let key =
            seen.one().context("this connection was begun anew with another key; try again")?;
        Ok((served, key))
    }
}

/// Asks at the URL, and checks what it is told.
pub(crate) async fn run(settings: &Settings, args: &Args) -> anyhow::Result<()> {
    let site = Site::read(&args.url)?;
    args.wanted.check()?;
    let pod = args.pod.as_deref().map(read_pod).transpose()?;
    let chain = settings.connect().await?;
    let nonce = rand::random();
    let (served, seen) = site.ask(args.address, nonce).await?;
    let deployment = chain.deployment();
    if (served.chain_id, served.leases) != (deployment.chain_id, deployment.leases) {
        bail!(NotServed::OtherMarket(site.url.into(), served.chain_id, served.leases));
    }
    in_between(&served, seen)?;
    if args.wanted.require.is_some() {
        ends_there(served.connection)?;
    }

    let on_chain = OnChain::read(&chain, served.lease).await?;
    agrees(&site.host, &served, &on_chain)?;
    if let Some(pod) = &pod {
        let (file, lease, theirs) = (pod.hash(), served.lease, on_chain.pod);
        ensure!(file == theirs, Untrue::OtherFile { lease, theirs, file });
        let has = pod.ingress().keys().any(|host| host.as_str() == site.host);
        ensure!(has, Untrue::NotItsHost(file, site.host));
    }

    let subject = subject(&chain, &site.host, &served, nonce).await?;
    let attestation = served.attestation.clone();
    let attestation = attestation.context("the provider was asked for evidence and sent none")?;
    let found = args
        .wanted
        .judge(attestation, &subject)
        .with_context(|| format!("nothing proves who serves {}", site.host))?;
    tell(settings, &site, &served, &on_chain, &subject, &found)
}

fn read_pod(path: &Path) -> anyhow::Result<Pod> {
    let text = std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
    serde_json::from_slice(&text).with_context(|| {
        format!("{} is no pod: write what `roadstead check --json` has under `pod`", path.display())
    })
}

/// Whether the provider speaks of the very connection that it is asked on.
fn in_between(served: &ServedHost, seen: Option<B256>) -> Result<(), Untrue> {
    let told = served.connection;
    if told.key().map(B256::from) == seen {
        return Ok(());
    }
    let seen = seen.map_or_else(|| "none".to_owned(), |key| key.to_string());
    Err(Untrue::InBetween { provider: served.provider, seen, told })
}

/// What the chain says of a lease.
#[derive(Debug, Clone, Copy)]
struct OnChain {
    state: State,
    provider: Address,
    payer: Address,
    pod: PodHash,
}

impl OnChain {
    async fn read(chain: &Chain, lease: u64) -> anyhow::Result<Self> {
        let view = chain.lease_views(&[lease], None).await?;
        let view = view.into_iter().next().context("the node returned no lease")?;
        let state = State::try_from(view.lease.state)?;
        let quote = match state {
            State::None => None,
            State::Pending | State::Active | State::Closed => chain.quote_of(lease).await?,
        };
        let pod = PodHash(quote.unwrap_or_default().pod);
        Ok(Self { state, provider: view.provider, payer: view.payer, pod })
    }
}

/// Whether the chain says of the lease what its provider does.
fn agrees(host: &str, served: &ServedHost, on_chain: &OnChain) -> Result<(), Untrue> {
    let ServedHost { provider, lease, pod, .. } = *served;
    let (host, theirs) = (host.to_owned(), on_chain.provider);
    match on_chain.state {
        State::None => Err(Untrue::NoLease(provider, host, lease)),
        State::Closed => Err(Untrue::Closed(lease, host)),
        State::Pending | State::Active if theirs != provider => {
            Err(Untrue::OtherProvider { lease, host, provider, theirs })
        }
        State::Pending => Err(Untrue::Pending(lease, host)),
        State::Active if on_chain.pod != pod => {
            Err(Untrue::OtherPod { lease, host, pod, theirs: on_chain.pod })
        }
        State::Active => Ok(()),
    }
}

/// What the evidence has to be about.
async fn subject(
    chain: &Chain,
    host: &str,
    served: &ServedHost,
    nonce: [u8; 32],
) -> anyhow::Result<Subject> {
    let listing = deploy::listing_of(chain, served.provider).await?.listing;
    Ok(Subject {
        nonce,
        chain_id: chain.id(),
        provider: served.provider.into(),
        sealing_key: SealingPublicKey(listing.sealKey.0),
        tls_key: listing.tlsKey.0,
        visit: Some(Visit {
            host: Visit::of_host(host),
            connection: served.connection,
            lease: served.lease,
            pod: served.pod.0.into(),
        }),
    })
}

/// Whether a connection ends at the provider, and nobody else has its key.
fn ends_there(connection: Connection) -> anyhow::Result<()> {
    match connection {
        Connection::Provider(_) => Ok(()),
        Connection::Publisher(_) => bail!(
            "--require asks for a connection that ends at the provider, and the app's publisher has this one's key, too"
        ),
        Connection::None => bail!(
            "--require asks for a connection that ends at the provider, and this one is not encrypted; ask with https://"
        ),
    }
}

fn tell(
    settings: &Settings,
    site: &Site,
    served: &ServedHost,
    on_chain: &OnChain,
    subject: &Subject,
    found: &Found,
) -> anyhow::Result<()> {
    let Site { url, host } = site;
    let ServedHost { provider, lease, pod, connection, .. } = served;
    let bound = matches!(connection, Connection::Provider(_));
    let value = serde_json::json!({
        "url": url.origin().ascii_serialization(),
        "host": host,
        "provider": provider,
        "lease": lease,
        "payer": on_chain.payer,
        "pod": pod,
        "connection": connection,
        "bound": bound,
        "subject": subject,
        "attested": found.value()?,
        "verdict": found.verdict(),
    });
    output::show(settings.json, &value, || {
        let proof = match found {
            Found::Attested(attested) => format!("which is {attested}"),
            Found::Unattested => "which is UNATTESTED: its wallet signed for all of this, and nothing proves what its \
                                  machine runs"
                .to_owned(),
        };
        let ends = match connection {
            Connection::Provider(_) => {
                "the connection ends at this provider, which alone has its key"
            }
            Connection::Publisher(_) => {
                "the connection's key was brought by the app's publisher, who has it, too: nothing proves that the \
                 connection ends at this provider"
            }
            Connection::None => {
                "nothing binds this connection to the provider: it is not encrypted, and whoever stands in between reads \
                 and changes it; ask with https://"
            }
        };
        format!(
            "{host} is served by provider {provider}, {proof}\n\
             for lease {lease}, which is active and paid by {}\n\
             by pod {pod}\n\
             {ends}",
            on_chain.payer
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served() -> ServedHost {
        ServedHost {
            provider: Address::repeat_byte(1),
            chain_id: 1,
            leases: Address::repeat_byte(2),
            lease: 7,
            pod: PodHash(B256::repeat_byte(3)),
            connection: Connection::Provider([4; 32]),
            attestation: None,
        }
    }

    #[test]
    fn an_apps_url_is_read() {
        for (text, url, host) in [
            ("https://Shop.example.org", "https://shop.example.org", "shop.example.org"),
            ("http://a.b.:8080/x?y=z#w", "http://a.b.:8080", "a.b"),
            (
                "https://m\u{fc}ller.example",
                "https://xn--mller-kva.example",
                "xn--mller-kva.example",
            ),
        ] {
            let site = Site::read(text).unwrap();
            assert_eq!(site.url.as_str(), format!("{url}{WELL_KNOWN}"));
            assert_eq!(site.host, host);
        }
        for bad in
            ["shop.example.org", "ftp://a.b", "https://", "https://127.0.0.1", "https://u@a.b"]
        {
            assert!(matches!(Site::read(bad), Err(NotServed::Url(_))), "{bad}");
        }
        let local = |url: &str| Site::read(url).unwrap().address(None).is_some();
        assert!(local("http://a.localhost:8081") && !local("http://localhost.example"));
    }

    #[test]
    fn another_key_is_somebody_in_between() {
        let key = |byte| Some(B256::repeat_byte(byte));
        let plain = ServedHost { connection: Connection::None, ..served() };
        let brought = ServedHost { connection: Connection::Publisher([4; 32]), ..served() };
        for (served, seen, fine) in [
            (&served(), key(4), true),
            (&served(), key(5), false),
            (&served(), None, false),
            (&brought, key(4), true),
            (&brought, key(5), false),
            (&plain, None, true),
            (&plain, key(4), false),
        ] {
            let said = in_between(served, seen);
            assert_eq!(said.is_ok(), fine, "{:?} {seen:?}", served.connection);
        }
    }

    #[test]
    fn the_chain_has_to_say_the_same() {
        let ours = served();
        let on_chain =
            |state, provider, pod| OnChain { state, provider, payer: Address::ZERO, pod };
        let check = |on_chain: OnChain, wanted: &str| {
            let said = agrees("a.example", &ours, &on_chain).unwrap_err().to_string();
            assert!(said.contains(wanted), "{said}");
        };
        let (provider, pod) = (ours.provider, ours.pod);
        let (other, other_pod) = (Address::repeat_byte(9), PodHash(B256::repeat_byte(9)));
        agrees("a.example", &ours, &on_chain(State::Active, provider, pod)).unwrap();
        check(on_chain(State::None, Address::ZERO, PodHash::default()), "there is no such lease");
        check(on_chain(State::Closed, provider, pod), "is closed");
        check(on_chain(State::Pending, provider, pod), "not active yet");
        check(on_chain(State::Active, other, pod), "is provider 0x0909");
        check(on_chain(State::Pending, other, pod), "is provider 0x0909");
        check(on_chain(State::Active, provider, other_pod), "is for pod 0x0909");
    }

    #[test]
    fn what_is_required_ends_at_the_provider() {
        ends_there(Connection::Provider([8; 32])).unwrap();
        for (connection, wanted) in [
            (Connection::Publisher([8; 32]), "the app's publisher has this one's key, too"),
            (Connection::None, "this one is not encrypted"),
        ] {
            let said = ends_there(connection).unwrap_err().to_string();
            assert!(said.contains(wanted), "{said}");
        }
    }

    #[test]
    fn what_was_signed_for_another_connection_does_not_count() {
        use ::provider::wire::Attestation;
        use alloy::signers::{SignerSync as _, local::PrivateKeySigner};
        use seal::attest::Unattested;

        let wallet = PrivateKeySigner::random();
        let subject = |connection| Subject {
            nonce: [1; 32],
            chain_id: 1,
            provider: wallet.address().into(),
            sealing_key: SealingPublicKey([3; 32]),
            tls_key: [4; 32],
            visit: Some(Visit { host: [5; 32], connection, lease: 7, pod: [6; 32] }),
        };
        let signed = |subject: &Subject| {
            let message = Unattested::message(subject);
            let signature = wallet.sign_message_sync(message.as_bytes()).unwrap().as_bytes();
            Attestation::Unattested(Unattested { signature })
        };
        let ours = subject(Connection::Provider([8; 32]));
        let found = Wanted::default().judge(signed(&ours), &ours).unwrap();
        assert!(matches!(found, Found::Unattested));
        // Or as somebody else's key.
        for other in
            [Connection::Provider([9; 32]), Connection::Publisher([8; 32]), Connection::None]
        {
            let err = Wanted::default().judge(signed(&subject(other)), &ours).unwrap_err();
            assert!(err.to_string().contains("not even its wallet signed"), "{err}");
        }
    }
}
