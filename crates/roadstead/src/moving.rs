//! `roadstead move`: an app to another provider, with what is in its volumes.
//!
//! The new lease is opened and runs before anything happens to the old one. Then the new pod is stopped and filled while
//! the old one goes on; then the old one is stopped, and what changed meanwhile is sent after it. So the app is away for
//! as long as the difference takes. Whatever fails before the end, the old lease goes on and the new one is closed.

use std::time::{Duration, Instant};

use ::provider::wire::{LeaseStatus, Phase, PublicPort};
use alloy::primitives::Address;
use anyhow::{Context as _, bail, ensure};
use protocol::{lease::CloseReason, pod::MaxPrice};
use serde::Serialize;

use crate::{
    cli::{self, LeaseRef},
    client::{ClientError, Import},
    deploy::{self, Opened},
    market::{self, Options},
    output::{self, tame},
    progress::{OnStderr, Progress, Step},
    publish::{self, amount, consent, interruptible, may_spend, rate, session},
    remote::Remote,
    session::Session,
    settings::Settings,
    show,
    state::State,
    volume::{held, keep_held},
};

/// For how many seconds the old pod is stopped without being asked again.
const HOLD: u64 = 120;

/// How often is looked whether the new pod goes on, and for how long.
const LOOK: Duration = Duration::from_millis(250);
const PATIENCE: Duration = Duration::from_secs(180);

/// For how long the new provider may be silent while the old pod is stopped.
const SILENCE: Duration = Duration::from_secs(15);

/// What `roadstead move` is asked for.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The lease's number, or the app's name
    lease: LeaseRef,
    #[command(flatten)]
    file: cli::PodFile,
    /// The provider that is to run it from now on
    #[arg(long, value_name = "ADDRESS")]
    to: Address,
    /// The highest price, in whole tokens per s, m, h, d or mo
    #[arg(long, value_name = "RATE")]
    max_price: Option<MaxPrice>,
    /// Put this many tokens into the account first
    #[arg(long, value_name = "AMOUNT")]
    fund: Option<String>,
    /// Do not ask before money is spent
    #[arg(long, short)]
    yes: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Moved {
    from: u64,
    lease: u64,
    provider: Address,
    volumes: Vec<String>,
    bytes: u64,
    /// For how long neither of the two ran.
    away_ms: u64,
    urls: Vec<String>,
    ports: Vec<PublicPort>,
}

/// Moves an app.
pub(crate) async fn run(settings: &Settings, args: &Args) -> anyhow::Result<()> {
    may_spend(args.yes)?;
    let progress = OnStderr::new();
    let (_file, ready) = publish::read(settings, &args.file, &progress).await?;
    let session = session(settings).await?;
    let mut state = State::read(&settings.home, session.chain().deployment())?;
    let id = state.resolve(&args.lease)?;
    let old_view = deploy::own(&session, id).await?;
    ensure!(old_view.provider != args.to, "lease {id} is at {} already", args.to);
    let old = Remote::of(&session, settings, &args.lease).await?;
    let accounts = show::accounts(session.chain(), session.wallet(), &state).await?;
    let account = accounts.get(&old_view.account);
    let options = Options {
        account: account
            .with_context(|| format!("the account of lease {id} is not known"))?
            .clone(),
        max_rate: rate(&session, args.max_price.as_ref())?,
        fund: amount(&session, args.fund.as_deref())?,
        provider: Some(args.to),
    };
    let volumes = volumes(&old, &ready.pod).await?;
    let offers = market::offers(&session, &ready, &options, &progress).await?;
    let offer = offers.first().context("the provider makes no offer")?;
    let question = format!(
        "Move lease {id} to {} ({}) for {}{}?",
        output::short(args.to),
        tame(&offer.view.listing.region),
        output::price(offer.response.rate(), &session.token),
        output::extras(&offer.response.price, &session.token)
    );
    consent(args.yes, &question)?;

    let opening = deploy::open(&session, &ready, &options, offer, &progress);
    let words =
        "interrupted while the new lease was being opened; see with `roadstead ps` whether it was";
    let opened = interruptible(opening, words).await?;
    let words = "interrupted";
    let moving = interruptible(Box::pin(fill(&session, &old, &opened, &volumes, &progress)), words);
    let (status, bytes, away) = match moving.await {
        Ok(filled) => filled,
        Err(err) => return Err(take_back(&session, id, &opened, err, &progress).await),
    };
    if let Some(app) = state.app_of(id).map(str::to_owned) {
        state.set_app(&app, opened.lease)?;
    }
    state.set_key(opened.lease, opened.key.as_ref())?;
    progress.step(&Step::Sending(format!("closes lease {id}")));
    deploy::close(&session, id, CloseReason::PayerMoved).await.with_context(|| {
        format!("lease {} runs; end lease {id} with `roadstead down {id}`", opened.lease)
    })?;
    let moved = Moved {
        from: id,
        lease: opened.lease,
        provider: opened.provider,
        volumes,
        bytes,
        away_ms: u64::try_from(away.as_millis()).unwrap_or(u64::MAX),
        urls: status.urls,
        ports: status.ports,
    };
    output::show(settings.json, &moved, || described(&moved))
}

fn described(moved: &Moved) -> String {
    let mut text = format!("lease {} runs at {}", moved.lease, moved.provider);
    for place in show::places(&moved.urls, &moved.ports) {
        text.push_str(&format!("\n  {place}"));
    }
    let volumes = match moved.volumes.as_slice() {
        [] => "it has no volumes".to_owned(),
        names => format!("with {} ({})", names.join(", "), crate::stats::bytes(moved.bytes)),
    };
    text.push_str(&format!(
        "\n{volumes}; neither ran for {}.{} s; lease {} is closed",
        moved.away_ms / 1_000,
        moved.away_ms % 1_000 / 100,
        moved.from
    ));
    text
}

/// The volumes that both have.
async fn volumes(old: &Remote, pod: &protocol::pod::Pod) -> anyhow::Result<Vec<String>> {
    let theirs = old.client.volumes(old.lease).await?;
    let mut both = Vec::new();
    for volume in theirs {
        let ours = pod.volumes().iter().find(|(name, _)| name.as_str() == volume.name);
        let Some((name, ours)) = ours else {
            bail!(
                "the pod file has no volume {}, whose contents would be left behind; add it, or update the lease first",
                tame(&volume.name)
            );
        };
        ensure!(
            ours.size >= volume.size,
            "volumes.{name}: what is in {} may not fit into {}",
            volume.size,
            ours.size
        );
        both.push(volume.name);
    }
    Ok(both)
}

/// Has the new lease run with what the old one has; how far it is, how many bytes went over, and for how long neither ran.
async fn fill(
    session: &Session,
    old: &Remote,
    opened: &Opened,
    volumes: &[String],
    progress: &OnStderr,
) -> anyhow::Result<(LeaseStatus, u64, Duration)> {
    let status = deploy::wait(session, opened, progress).await?;
    if volumes.is_empty() {
        return Ok((status, 0, Duration::ZERO));
    }
    let new = Remote { lease: opened.lease, client: opened.client.clone() };
    let note = |words: String| progress.step(&Step::Note(words));
    let (bytes, away) = held(&new, async {
        let mut bytes = 0;
        let mut begun = Vec::new();
        for volume in volumes {
            note(format!("copying volume {volume} while lease {} goes on", old.lease));
            let (sent, at) = copy(old, &new, volume, None).await?;
            bytes += sent;
            begun.push(at);
        }
        note(format!("stopping lease {} for the rest", old.lease));
        let away = Instant::now();
        old.client.hold(old.lease, HOLD).await.context("the old pod was not stopped")?;
        let rest = async {
            let mut bytes = 0;
            for (volume, since) in volumes.iter().zip(&begun) {
                bytes += match copy(old, &new, volume, *since).await {
                    // A folder was renamed, or the like: what did not change is at another place.
                    Err(err) if is_refused(&err) => copy(old, &new, volume, None).await?.0,
                    copied => copied?.0,
                };
            }
            anyhow::Ok(bytes)
        };
        tokio::select! {
            sent = rest => bytes += sent?,
            never = keep_held(old) => match never {},
        }
        anyhow::Ok((bytes, away))
    })
    .await?;
    let status = tokio::select! {
        status = goes_on(&new) => status?,
        never = keep_held(old) => match never {},
    };
    Ok((status, bytes, away.elapsed()))
}

fn is_refused(err: &anyhow::Error) -> bool {
    matches!(err.downcast_ref(), Some(ClientError::Refused { .. }))
}

/// Copies a volume, or what changed in it since then; how many bytes that took, and when it was begun.
async fn copy(
    old: &Remote,
    new: &Remote,
    volume: &str,
    since: Option<u64>,
) -> anyhow::Result<(u64, Option<u64>)> {
    let (tar, begun) = old.client.export(old.lease, volume, false, since).await?;
    let how = Import { mirror: true, ..Import::default() };
    let done = new.client.import(new.lease, volume, how, tar).await?;
    Ok((done.bytes, begun))
}

/// Waits until a pod runs again.
async fn goes_on(new: &Remote) -> anyhow::Result<LeaseStatus> {
    let end = Instant::now() + PATIENCE;
    let mut message = None;
    let mut heard = Instant::now();
    while Instant::now() < end {
        ensure!(heard.elapsed() < SILENCE, "its provider is not heard of any more");
        if let Ok(status) = new.client.status(new.lease).await {
            heard = Instant::now();
            let up = status.services.iter().all(|service| {
                let healthy = service.health.as_deref();
                let done = service.state == "exited";
                done || service.state == "running"
                    && healthy.is_none_or(|h| h == "healthy" || h == "none")
            });
            if status.phase == Phase::Running && up {
                return Ok(status);
            }
            ensure!(status.phase != Phase::Closed, "the new lease was closed");
            message = status.message;
        }
        tokio::time::sleep(LOOK).await;
    }
    bail!("it does not run with the volumes: {}", message.as_deref().map(tame).unwrap_or_default())
}

/// After a failure: the old lease goes on, the new one is closed.
async fn take_back(
    session: &Session,
    old: u64,
    opened: &Opened,
    err: anyhow::Error,
    progress: &OnStderr,
) -> anyhow::Error {
    progress.step(&Step::Note(format!("going back to lease {old}")));
    let released = async {
        let view = deploy::own(session, old).await?;
        let (client, _listing) = deploy::provider_of(session, view.provider).await?;
        anyhow::Ok(client.release(old).await?)
    };
    let released = released.await;
    let closed = match deploy::own(session, opened.lease).await {
        Ok(_open) => deploy::close(session, opened.lease, CloseReason::PayerDone).await.map(drop),
        Err(_closed_already) => Ok(()),
    };
    let mut words = format!("nothing was moved, lease {old} goes on");
    if let Err(err) = released {
        words.push_str(&format!(
            "; if it was stopped, it starts by itself within {HOLD} seconds ({})",
            output::causes(&err)
        ));
    }
    if let Err(closing) = closed {
        words.push_str(&format!(
            "; lease {0} is still open, end it with `roadstead down {0}` ({1})",
            opened.lease,
            output::causes(&closing)
        ));
    }
    err.context(words)
}
