//! A lease's volumes: out as a tar and in again, while it goes on and for a while after its end; and the hold in which
//! they stand still.
//!
//! What comes in is a stranger's tar: `tree` says what it cannot do. It is bounded by the volume, which is a file system
//! of its own, mounted where nothing in it is ever run. What is read may be changed meanwhile by the pod, whose payer is
//! who reads it.

use std::{
    io::{self, BufWriter, Write},
    os::fd::AsFd,
    time::{Duration, SystemTime},
};

use axum::{
    Json,
    body::Body,
    extract::{Path, Query, State},
    http::{HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
};
use bollard::models::ContainerSummaryStateEnum;
use bytes::Bytes;
use futures::TryStreamExt;
use protocol::{lease::State as LeaseState, pod::Pod, resources};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::{Caller, Refusal, Theirs, Wallet, ours, theirs, told};
use crate::{
    holds::MAX_HOLD,
    leases::PodKey,
    reconcile::Shared,
    records::rfc3339,
    slots::Kind,
    tree::{self, Packing, TreeError, Unpacking},
    volumes::VolumeFile,
    wire::{BEGUN, Hold, Imported, Phase, VolumeStatus},
};

/// How much of a tar is sent at a time, and how many such chunks wait to be.
const CHUNK: usize = 256 << 10;
const READ_AHEAD: usize = 4;

impl From<TreeError> for Refusal {
    fn from(err: TreeError) -> Self {
        match &err {
            TreeError::Full(_) => told(StatusCode::INSUFFICIENT_STORAGE, err),
            TreeError::Tar(_)
            | TreeError::Outside(_)
            | TreeError::Unwelcome(..)
            | TreeError::Missing(_)
            | TreeError::Link(_) => told(StatusCode::UNPROCESSABLE_ENTITY, err),
            TreeError::Write(_) | TreeError::Io(..) => ours(err),
        }
    }
}

/// The volumes that are kept of a lease, by their names in its pod.
fn kept(shared: &Shared, key: PodKey) -> io::Result<Vec<(String, VolumeFile)>> {
    let prefix = format!("{}-", key.prefix());
    let kept = shared.engine.kept_volumes()?.into_iter();
    Ok(kept
        .filter_map(|volume| Some((volume.name.strip_prefix(&prefix)?.to_owned(), volume)))
        .collect())
}

fn status(name: String, file: &VolumeFile, kept_until: Option<String>) -> VolumeStatus {
    let (size, used) = (resources::Bytes(file.size), resources::Bytes(file.used));
    VolumeStatus { name, size, used, kept_until }
}

pub(super) async fn list(
    State(api): Caller,
    Wallet(wallet): Wallet,
    Path(id): Path<u64>,
) -> Result<Json<Vec<VolumeStatus>>, Refusal> {
    let theirs = theirs(&api, wallet, id).await?;
    let shared = &api.shared;
    let pod = shared.pods.get(theirs.pod).ok();
    let names = pod.iter().flat_map(|pod| pod.volumes().keys());
    let here = names.filter_map(|name| {
        let file = shared.engine.volume(theirs.key, name.as_str())?;
        Some(status(name.to_string(), &file, None))
    });
    let until = shared.records.get(theirs.key).and_then(|record| record.volumes_until());
    let kept = kept(shared, theirs.key).map_err(ours)?;
    let kept = kept.iter().map(|(name, file)| status(name.clone(), file, until.map(rfc3339)));
    Ok(Json(here.chain(kept).collect()))
}

/// Whether a volume is one that is kept.
fn find(shared: &Shared, theirs: &Theirs, name: &str) -> Result<bool, Refusal> {
    let kept = kept(shared, theirs.key).map_err(ours)?;
    if kept.iter().any(|(kept, _)| kept == name) {
        return Ok(true);
    }
    let pod = shared.pods.get(theirs.pod).ok();
    let has = |pod: &Pod| pod.volumes().keys().any(|volume| volume.as_str() == name);
    if pod.as_ref().is_some_and(has) && shared.engine.volume(theirs.key, name).is_some() {
        return Ok(false);
    }
    let words = format!("lease {} has no volume {name} here", theirs.key.lease);
    Err(Refusal(StatusCode::NOT_FOUND, words))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExportQuery {
    /// Whether the pod is frozen meanwhile.
    #[serde(default)]
    pause: bool,
    /// Files that were last changed before that, in Unix seconds of this provider, are named without their bytes.
    since: Option<u64>,
}

/// Ends a hold when an answer is through, or nobody waits for it any more.
struct Frozen {
    shared: std::sync::Arc<Shared>,
    key: PodKey,
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.shared.holds.end(self.key);
    }
}

pub(super) async fn export(
    State(api): Caller,
    Wallet(wallet): Wallet,
    Path((id, name)): Path<(u64, String)>,
    Query(query): Query<ExportQuery>,
) -> Result<Response, Refusal> {
    let theirs = theirs(&api, wallet, id).await?;
    let shared = &api.shared;
    let kept = find(shared, &theirs, &name)?;
    let slot = api.slots.take(theirs.key, Kind::Copy)?;
    let frozen = match query.pause && !kept {
        true => {
            let held = shared.hold(theirs.key, &theirs.found, MAX_HOLD, true).await;
            held.then(|| Frozen { shared: shared.clone(), key: theirs.key })
                .ok_or_else(stopped)?
                .into()
        }
        false => None,
    };
    let mounted = shared.engine.mount(theirs.key, &name, kept).await?;
    let root = tree::root(mounted.path())?;
    let since = query.since.map(|since| SystemTime::UNIX_EPOCH + Duration::from_secs(since));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (tell, chunks) = mpsc::channel(READ_AHEAD);
    // It ends when nobody reads any more, and the volume is unmounted and the pod goes on then.
    tokio::task::spawn_blocking(move || {
        let _until_then = (slot, frozen, mounted);
        let out = BufWriter::with_capacity(CHUNK, Chunks(&tell));
        let how = Packing { since, ..Packing::default() };
        if let Err(err) = tree::pack(root.as_fd(), &how, out) {
            // An answer that breaks off cannot be taken for a whole one.
            let _nobody_reads = tell.blocking_send(Err(io::Error::other(err)));
        }
    });
    let body = Body::from_stream(ReceiverStream::new(chunks));
    let kind = (header::CONTENT_TYPE, "application/x-tar".to_owned());
    let begun = (HeaderName::from_static(BEGUN), now.as_secs().to_string());
    Ok(([kind, begun], body).into_response())
}

fn stopped() -> Refusal {
    let words = "the pod is stopped at its payer's wish already; it needs no pause";
    Refusal(StatusCode::CONFLICT, words.into())
}

/// Writes into a channel.
struct Chunks<'a>(&'a mpsc::Sender<io::Result<Bytes>>);

impl Write for Chunks<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map_err(|_nobody_reads| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ImportQuery {
    /// Whether what is there is removed first.
    #[serde(default)]
    replace: bool,
    /// Whether what the tar does not name is removed, and files that it calls unchanged stay.
    #[serde(default)]
    mirror: bool,
    /// Whether its services may run meanwhile.
    #[serde(default)]
    live: bool,
}

pub(super) async fn import(
    State(api): Caller,
    Wallet(wallet): Wallet,
    Path((id, name)): Path<(u64, String)>,
    Query(ImportQuery { replace, mirror, live }): Query<ImportQuery>,
    body: Body,
) -> Result<Json<Imported>, Refusal> {
    let theirs = theirs(&api, wallet, id).await?;
    let shared = &api.shared;
    if find(shared, &theirs, &name)? {
        let words = format!("lease {id} is closed, its volumes can be read and not written");
        return Err(Refusal(StatusCode::CONFLICT, words));
    }
    if !live && let Some(service) = uses(shared, &theirs, &name) {
        let words = format!(
            "service {service} runs and has volume {name} open: hold the lease first, or import with live=true"
        );
        return Err(Refusal(StatusCode::CONFLICT, words));
    }
    let slot = api.slots.take(theirs.key, Kind::Copy)?;
    let mounted = shared.engine.mount(theirs.key, &name, false).await?;
    let root = tree::root(mounted.path())?;
    let tar = StreamReader::new(body.into_data_stream().map_err(io::Error::other));
    let tar = SyncIoBridge::new(tar);
    let imported = tokio::task::spawn_blocking(move || {
        let _until_then = (slot, mounted);
        if replace {
            tree::clear(root.as_fd())?;
        }
        let how = Unpacking { owners: true, mirror, rename: None };
        let done = tree::unpack(root.as_fd(), tar, &how)?;
        nix::unistd::syncfs(&root).map_err(|err| TreeError::Write(err.into()))?;
        Ok::<_, TreeError>(done)
    });
    let done = imported.await.map_err(ours)??;
    tracing::info!(
        lease.id = id,
        "{} entries were imported into a volume of lease {id}",
        done.entries
    );
    Ok(Json(Imported { entries: done.entries, bytes: done.bytes }))
}

/// A service that runs and has the volume.
fn uses(shared: &Shared, theirs: &Theirs, volume: &str) -> Option<String> {
    let pod = shared.pods.get(theirs.pod).ok()?;
    let up = |name: &str| {
        let state = theirs.containers.get(name).map(|container| container.state);
        !matches!(
            state,
            None | Some(ContainerSummaryStateEnum::EXITED | ContainerSummaryStateEnum::CREATED)
        )
    };
    let mut services = pod.services().iter();
    let found = services.find(|(name, service)| {
        up(name.as_str()) && service.volumes.values().any(|mount| mount.source.as_str() == volume)
    });
    found.map(|(name, _)| name.to_string())
}

pub(super) async fn remove(
    State(api): Caller,
    Wallet(wallet): Wallet,
    Path((id, name)): Path<(u64, String)>,
) -> Result<StatusCode, Refusal> {
    let theirs = theirs(&api, wallet, id).await?;
    if !find(&api.shared, &theirs, &name)? {
        let words = format!("volume {name} is in use; it can be removed once lease {id} is closed");
        return Err(Refusal(StatusCode::CONFLICT, words));
    }
    let name = format!("{}-{name}", theirs.key.prefix());
    api.shared.engine.discard_volume(&name).await.map_err(ours)?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn hold(
    State(api): Caller,
    Wallet(wallet): Wallet,
    Path(id): Path<u64>,
    Json(Hold { seconds }): Json<Hold>,
) -> Result<StatusCode, Refusal> {
    let theirs = theirs(&api, wallet, id).await?;
    let refuse = |why: &str| Refusal(StatusCode::CONFLICT, format!("lease {id} {why}"));
    let active = theirs.lease.as_ref().is_some_and(|lease| lease.state == LeaseState::Active);
    let phase = api.shared.statuses.get(theirs.key).map(|status| status.phase);
    let steady = matches!(phase, Some(Phase::Running | Phase::Unhealthy | Phase::Held));
    if !active || !(steady || api.shared.holds.is_held(theirs.key)) {
        return Err(refuse("does not run, so it cannot be held; wait until it does"));
    }
    let time = Duration::from_secs(seconds);
    match api.shared.hold(theirs.key, &theirs.found, time, false).await {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(refuse("is frozen while a volume is exported; try again when that is done")),
    }
}

pub(super) async fn release(
    State(api): Caller,
    Wallet(wallet): Wallet,
    Path(id): Path<u64>,
) -> Result<StatusCode, Refusal> {
    let theirs = theirs(&api, wallet, id).await?;
    api.shared.release(theirs.key).await?;
    Ok(StatusCode::NO_CONTENT)
}
