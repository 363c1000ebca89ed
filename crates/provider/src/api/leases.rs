//! What a lease's payer reads of it: logs, events, what it uses. After its end, too, as long as it is kept.
//!
//! Whoever is signed in may ask, and learns nothing of a lease that another wallet pays for. What is read was written by the
//! payer's own pod or by this provider; the worst that asking does is to keep connections to the engine open, which are
//! counted.

use std::time::{Duration, SystemTime};

use axum::{
    body::Body,
    extract::{Path, Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use bollard::models::ContainerSummaryStateEnum;
use futures::{
    Stream, StreamExt,
    stream::{self, select_all},
};
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast::error::RecvError, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use super::{Caller, Refusal, Theirs, Wallet, ours, theirs};
use crate::{
    archive,
    slots::{Kind, Slot},
    wire::{Happening, LogLine},
};

/// How many lines of the past are read ahead.
const READ_AHEAD: usize = 256;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogQuery {
    service: Option<String>,
    #[serde(default)]
    follow: bool,
    tail: Option<u32>,
    /// Unix seconds.
    #[serde(default)]
    since: u64,
}

/// The lines of containers that are gone come before those of the ones that are there. With `tail`, and a container that
/// is there, its lines alone are meant.
pub(super) async fn logs(
    State(api): Caller,
    Wallet(wallet): Wallet,
    Path(id): Path<u64>,
    Query(query): Query<LogQuery>,
) -> Result<Response, Refusal> {
    let theirs = theirs(&api, wallet, id).await?;
    let slot = api.slots.take(theirs.key, Kind::Stream)?;
    let folder = api.shared.records.logs(theirs.key);
    let mut past = archive::services(&folder);
    let mut containers = theirs.containers.clone();
    if let Some(wanted) = &query.service {
        let known = || past.iter().chain(containers.keys());
        if !known().any(|name| name == wanted) {
            return Err(unknown(&theirs, wanted, known()));
        }
        past.retain(|name| name == wanted);
        containers.retain(|name, _container| name == wanted);
    }
    if query.tail.is_some() && !containers.is_empty() {
        past.clear();
    }
    let LogQuery { follow, tail, since, .. } = query;
    let from = SystemTime::UNIX_EPOCH + Duration::from_secs(since);
    let count = tail.map(|tail| usize::try_from(tail).unwrap_or(usize::MAX));
    let (tell, told) = mpsc::channel::<std::io::Result<LogLine>>(READ_AHEAD);
    // It ends by itself when nobody reads any more.
    tokio::task::spawn_blocking(move || {
        let hand_on = |line| tell.blocking_send(Ok(line)).is_ok();
        if let Err(err) = archive::read(&folder, &past, from, count, hand_on) {
            let _nobody_reads = tell.blocking_send(Err(err));
        }
    });
    let past = ReceiverStream::new(told).map(|line| line.map_err(Failure::from));
    let engine = &api.shared.engine;
    let since = i32::try_from(since).unwrap_or(i32::MAX);
    let streams = containers
        .iter()
        .map(|(name, container)| engine.logs(name.clone(), container, follow, tail, since));
    let live = select_all(streams).map(|line| line.map_err(Failure::from));
    Ok(lines(past.chain(live), slot))
}

/// A refusal that says what there is.
pub(super) fn unknown<'a>(
    theirs: &Theirs,
    wanted: &str,
    known: impl Iterator<Item = &'a String>,
) -> Refusal {
    let mut known: Vec<&str> = known.map(String::as_str).collect();
    known.sort_unstable();
    known.dedup();
    let known = known.join(", ");
    let words = format!("lease {} has no service {wanted}; it has: {known}", theirs.key.lease);
    Refusal(StatusCode::NOT_FOUND, words)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventQuery {
    #[serde(default)]
    follow: bool,
    /// Unix seconds.
    #[serde(default)]
    since: u64,
}

pub(super) async fn events(
    State(api): Caller,
    Wallet(wallet): Wallet,
    Path(id): Path<u64>,
    Query(query): Query<EventQuery>,
) -> Result<Response, Refusal> {
    let Theirs { key, .. } = theirs(&api, wallet, id).await?;
    let slot = api.slots.take(key, Kind::Stream)?;
    let since = SystemTime::UNIX_EPOCH + Duration::from_secs(query.since);
    let (past, news) = api.shared.records.events(key, since).map_err(ours)?;
    let is_last = |what: &Happening| matches!(what, Happening::Removed { .. });
    let over = past.iter().any(|event| is_last(&event.what));
    let news = (query.follow && !over).then_some(news);
    let news = stream::unfold(news, move |news| async move {
        let mut news = news?;
        loop {
            match news.recv().await {
                Ok((of, event)) if of == key => {
                    let next = (!is_last(&event.what)).then_some(news);
                    return Some((Ok(event), next));
                }
                // Other leases' events, or more of them than fit.
                Ok(_) | Err(RecvError::Lagged(_)) => (),
                Err(RecvError::Closed) => return None,
            }
        }
    });
    Ok(lines(stream::iter(past).map(Ok::<_, Failure>).chain(news), slot))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StatsQuery {
    service: Option<String>,
    #[serde(default)]
    follow: bool,
}

pub(super) async fn stats(
    State(api): Caller,
    Wallet(wallet): Wallet,
    Path(id): Path<u64>,
    Query(query): Query<StatsQuery>,
) -> Result<Response, Refusal> {
    let theirs = theirs(&api, wallet, id).await?;
    let slot = api.slots.take(theirs.key, Kind::Stream)?;
    if let Some(wanted) = &query.service {
        theirs.container(Some(wanted))?;
    }
    let wanted = theirs.containers.iter().filter(|(name, container)| {
        let runs = matches!(
            container.state,
            ContainerSummaryStateEnum::RUNNING | ContainerSummaryStateEnum::PAUSED
        );
        runs && query.service.as_ref().is_none_or(|wanted| wanted == *name)
    });
    let streams = wanted
        .map(|(name, container)| api.shared.engine.stats(name.clone(), container, !query.follow));
    Ok(lines(select_all(streams).map(|stats| stats.map_err(Failure::from)), slot))
}

/// An answer of one JSON object per line.
fn lines<T: Serialize>(
    values: impl Stream<Item = Result<T, Failure>> + Send + 'static,
    slot: Slot,
) -> Response {
    let lines = values.map(move |value| {
        let _open = &slot;
        let mut text = serde_json::to_vec(&value?)?;
        text.push(b'\n');
        Ok::<_, Failure>(text)
    });
    let headers = [(header::CONTENT_TYPE, "application/x-ndjson")];
    (headers, Body::from_stream(lines)).into_response()
}
