//! `roadstead unlock`: the key of a lease's encrypted images, for each start that asks for it.
//!
//! Whoever answers at the provider's address says that a start waits. What that gets is the key sealed to the sealing key that
//! the Registry has for the lease's provider, for the pod that the chain names and this one start: so it learns nothing
//! that it would not at a start of the lease.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    time::{Duration, Instant},
};

use ::provider::wire::{KeyRequest, LeaseStatus, Phase, SealedKey};
use alloy::{primitives::B256, signers::SignerSync as _};
use anyhow::{Context as _, bail, ensure};
use protocol::lease::State as LeaseState;
use reqwest::StatusCode;
use seal::{KeyContext, SenderKey};

use crate::{
    cli::LeaseRef,
    client::{Client, ClientError},
    deploy,
    encrypt::KeyFile,
    output,
    podfile::PodFile,
    publish,
    session::Session,
    settings::Settings,
    state::{KnownKey, State},
    trust::ImageKey,
};

/// How often is looked whether a start waits.
const POLL: Duration = Duration::from_millis(500);

/// The same, where it may be days until one does.
const WATCH_POLL: Duration = Duration::from_secs(3);

/// How often the chain is asked for leases that came meanwhile.
const LEASES_EVERY: Duration = Duration::from_secs(30);

/// How long a start may take to ask, and to take what is sent.
const PATIENCE: Duration = Duration::from_secs(60);

/// Which leases, with which key.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The lease's number, or the app's name; with --watch, all whose keys are known here where none is named
    #[arg(required_unless_present = "watch")]
    lease: Option<LeaseRef>,
    /// The key's file [default: the one with which the lease was deployed, else the one that the pod file names]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The pod file, for a lease that was not deployed from here: it says what the provider has to prove
    #[arg(long, value_name = "FILE", requires = "lease")]
    file: Option<PathBuf>,
    /// Go on, and send the key whenever a provider asks for it
    #[arg(long)]
    watch: bool,
}

/// A lease whose key is sent.
#[derive(Debug, Clone)]
struct Locked {
    client: Client,
    account: B256,
    key: KeyFile,
}

/// Does what was asked.
pub(crate) async fn run(settings: &Settings, args: &Args) -> anyhow::Result<()> {
    let session = publish::session(settings).await?;
    if args.watch {
        return watch(settings, args, &session).await;
    }
    let lease = args.lease.as_ref().context("no lease is named")?;
    let state = State::read(&settings.home, session.chain().deployment())?;
    let id = state.resolve(lease)?;
    let locked = locked(settings, args, &session, &state, id).await?;
    let sent = once(&session, id, &locked).await?;
    output::show(settings.json, &serde_json::json!({ "lease": id, "sent": sent }), || match sent {
        true => format!("the provider of lease {id} has taken the key, and goes on with its start"),
        false => format!("lease {id} runs; its provider asks for no key"),
    })
}

async fn locked(
    settings: &Settings,
    args: &Args,
    session: &Session,
    state: &State,
    id: u64,
) -> anyhow::Result<Locked> {
    let view = deploy::own(session, id).await?;
    let (path, trust) = match (state.keys().remove(&id), &args.file) {
        (Some(KnownKey { file, trust }), _) => (Some(file), trust),
        (None, Some(file)) => {
            let file = PodFile::read(Some(file))?;
            (file.key_path(), file.trust()?)
        }
        (None, None) => bail!(
            "lease {id} was not deployed from here, so that it is not known what its provider has to prove before it gets \
             the key; name its pod file with --file"
        ),
    };
    let path = args.key.as_ref().or(path.as_ref());
    let key = KeyFile::read(&settings.home, path.map(PathBuf::as_path), trust)?;
    let (client, _listing) = deploy::provider_of(session, view.provider).await?;
    Ok(Locked { client, account: view.account, key })
}

/// Sends the key for the start of a lease that waits, or is about to; whether one did.
async fn once(session: &Session, id: u64, locked: &Locked) -> anyhow::Result<bool> {
    let end = Instant::now() + PATIENCE;
    let mut sent = false;
    loop {
        let status = locked.client.status(id).await;
        let status =
            status.with_context(|| format!("the provider does not say how lease {id} is"))?;
        match (status.key_request, status.phase) {
            (Some(request), _) => {
                let answer = answer(session, id, locked, request).await?;
                sent |= answer == Answer::Taken;
            }
            (None, _) if sent => return Ok(true),
            (None, Phase::Running | Phase::Unhealthy | Phase::Paused) => return Ok(false),
            (None, Phase::Failed | Phase::Closed | Phase::Held) => {
                bail!("lease {id} asks for no key: {}", told(&status))
            }
            (None, Phase::Seen | Phase::Fetching | Phase::Locked | Phase::Starting) => (),
        }
        ensure!(
            Instant::now() < end,
            "the provider of lease {id} does not ask for its key: {}",
            told(&status)
        );
        tokio::time::sleep(POLL).await;
    }
}

/// How far a lease is, for people.
fn told(status: &LeaseStatus) -> String {
    let phase = crate::progress::Step::Phase(status.phase);
    match &status.message {
        Some(message) => format!("{phase} ({})", output::tame(message)),
        None => phase.to_string(),
    }
}

/// Sends keys whenever they are asked for, until Ctrl-C.
async fn watch(settings: &Settings, args: &Args, session: &Session) -> anyhow::Result<()> {
    let mut leases = BTreeMap::new();
    let mut read: Option<Instant> = None;
    // What was said last of each, so that a provider that stays away is told of once.
    let mut said: HashMap<u64, String> = HashMap::new();
    let mut tick = tokio::time::interval(WATCH_POLL);
    loop {
        tokio::select! {
            _ = tick.tick() => (),
            () = crate::interrupted() => return Ok(()),
        }
        if read.is_none_or(|read| read.elapsed() > LEASES_EVERY) {
            match watched(settings, args, session).await {
                Ok(found) => leases = found,
                // At the start it is a mistake, later on the node's trouble.
                Err(err) if read.is_none() || err.is::<NotOpen>() => return Err(err),
                Err(err) => eprintln!("leases could not be looked for: {}", output::causes(&err)),
            }
            read = Some(Instant::now());
        }
        for (id, locked) in &leases {
            let looked = match locked {
                Ok(known) => {
                    let looked = look(settings, args, session, *id, known).await;
                    looked.map_err(|err| output::causes(&err))
                }
                Err(words) => Err(words.clone()),
            };
            match looked {
                Ok(false) => drop(said.remove(id)),
                Ok(true) => {
                    said.remove(id);
                    let line = match settings.json {
                        true => serde_json::json!({ "lease": id, "sent": true }).to_string(),
                        false => format!("lease {id}: its key was sent"),
                    };
                    output::print(&line)?;
                }
                Err(words) => {
                    if said.get(id) != Some(&words) {
                        eprintln!("lease {id}: {words}");
                        said.insert(*id, words);
                    }
                }
            }
        }
    }
}

/// Sends the key of a lease if its start waits for it, by what is known by then of who may have it.
async fn look(
    settings: &Settings,
    args: &Args,
    session: &Session,
    id: u64,
    known: &Locked,
) -> anyhow::Result<bool> {
    let Some(request) = known.client.status(id).await?.key_request else { return Ok(false) };
    let state = State::read(&settings.home, session.chain().deployment())?;
    let locked = locked(settings, args, session, &state, id).await?;
    Ok(answer(session, id, &locked, request).await? == Answer::Taken)
}

/// A lease that was named and takes no key.
#[derive(Debug, thiserror::Error)]
#[error("lease {0} is not an open lease of this wallet's; `roadstead ps --all` lists them")]
struct NotOpen(u64);

/// The open leases whose keys are sent. What keeps one from having its key is its own trouble, and not the others'.
async fn watched(
    settings: &Settings,
    args: &Args,
    session: &Session,
) -> anyhow::Result<BTreeMap<u64, Result<Locked, String>>> {
    let state = State::read(&settings.home, session.chain().deployment())?;
    let ids: Vec<u64> = match &args.lease {
        Some(lease) => vec![state.resolve(lease)?],
        None => state.keys().into_keys().collect(),
    };
    let views = session.chain().lease_views(&ids, None).await?;
    let mut leases = BTreeMap::new();
    for (id, view) in ids.iter().zip(views) {
        let open = LeaseState::try_from(view.lease.state)?;
        let is_open = matches!(open, LeaseState::Pending | LeaseState::Active);
        if is_open && view.payer == session.wallet() {
            let locked = match locked(settings, args, session, &state, *id).await {
                Err(err) if args.lease.is_some() => return Err(err),
                locked => locked,
            };
            leases.insert(*id, locked.map_err(|err| output::causes(&err)));
        } else if args.lease.is_some() {
            bail!(NotOpen(*id));
        }
    }
    Ok(leases)
}

/// What came of a key that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The start goes on with it.
    Taken,
    /// It came too late for this nonce: another one may be asked for.
    Late,
}

async fn answer(
    session: &Session,
    id: u64,
    locked: &Locked,
    request: KeyRequest,
) -> anyhow::Result<Answer> {
    // A provider could ask for the key of a pod that the payer never agreed to.
    let pod = deploy::pod_of(session, id).await?;
    ensure!(
        request.pod == pod,
        "its provider asks for the key of pod {}, and the lease is for pod {pod}",
        request.pod
    );
    let sent = send(session, &locked.client, (id, locked.account), request, &locked.key.sealed);
    let sent = sent.await;
    sent.with_context(|| format!("the key {} was not taken", locked.key.path.display()))
}

/// Seals the key of a lease, which `account` pays, for the start that asks for it, and sends it.
pub(crate) async fn send(
    session: &Session,
    client: &Client,
    (lease, account): (u64, B256),
    request: KeyRequest,
    key: &ImageKey,
) -> anyhow::Result<Answer> {
    let endpoint = client.endpoint();
    let deployment = session.chain().deployment();
    let (chain_id, leases) = (deployment.chain_id, deployment.leases.into());
    let signer = session.sender.signer();
    let signed = signer.sign_message_sync(SenderKey::message(chain_id, &leases).as_bytes())?;
    let [signed @ .., _parity] = signed.as_bytes();
    let sender = SenderKey::from_signature(&zeroize::Zeroizing::new(signed));
    let context = KeyContext {
        chain_id,
        leases,
        account: account.into(),
        lease,
        provider: endpoint.address.into(),
        pod: request.pod.0.into(),
        nonce: request.nonce,
    };
    let claim = sender.public().claim(chain_id, &leases);
    let sealed = SealedKey {
        nonce: request.nonce,
        key: key.seal(endpoint, &sender, &context).await?,
        sender: sender.public(),
        claim: signer.sign_message_sync(claim.as_bytes())?.as_bytes().into(),
    };
    match client.unlock(lease, &sealed).await {
        Ok(()) => Ok(Answer::Taken),
        Err(ClientError::Refused { status: StatusCode::CONFLICT, .. }) => Ok(Answer::Late),
        Err(err) => Err(err.into()),
    }
}
