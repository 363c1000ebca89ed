//! A node that fails and lies: it stands before an honest one and does to its answers what it is told.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Bytes, extract::State, http::StatusCode, response::IntoResponse};
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// What it does to every so many answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// It does not answer at all for a while, then cuts the connection.
    Hangs,
    /// Status 429.
    RateLimits,
    /// Status 200 with an error of JSON-RPC.
    Refuses,
    /// Half of a JSON text.
    Breaks,
    /// A head that is far beyond the true one.
    HighHead,
    /// A head that is behind.
    LowHead,
    /// Another hash for its head.
    OtherHash,
    /// A log is left out, another one each time.
    LeavesLogsOut,
    /// All logs are left out.
    LeavesAllOut,
    /// A log says something else than it said.
    ChangesLogs,
    /// A receipt's log is left out.
    LeavesReceiptsOut,
    /// An answer of the batch is left out.
    LeavesAnswersOut,
}

pub(crate) struct Proxy {
    pub(crate) url: String,
    inner: Arc<Inner>,
    _task: JoinSet<()>,
}

struct Inner {
    behind: String,
    fault: Mutex<(Fault, u8)>,
    asked: AtomicU64,
    /// How many answers it spoiled.
    spoiled: AtomicU64,
    http: reqwest::Client,
}

impl Proxy {
    pub(crate) async fn start(behind: &str) -> anyhow::Result<Self> {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let inner = Arc::new(Inner {
            behind: behind.to_owned(),
            fault: Mutex::new((Fault::None, 1)),
            asked: AtomicU64::new(0),
            spoiled: AtomicU64::new(0),
            http: reqwest::Client::new(),
        });
        let router = Router::new().fallback(answer).with_state(Arc::clone(&inner));
        let mut task = JoinSet::new();
        task.spawn(async move {
            if let Err(err) = axum::serve(listener, router).await {
                eprintln!("the proxy ended: {err}");
            }
        });
        Ok(Self { url, inner, _task: task })
    }

    /// Spoils one of every `every` answers that it can spoil like that.
    pub(crate) fn spoil(&self, fault: Fault, every: u8) {
        *self.inner.fault.lock().unwrap() = (fault, every);
        self.inner.spoiled.store(0, Ordering::Relaxed);
    }

    pub(crate) fn spoiled(&self) -> u64 {
        self.inner.spoiled.load(Ordering::Relaxed)
    }
}

async fn answer(State(proxy): State<Arc<Inner>>, body: Bytes) -> axum::response::Response {
    let (fault, every) = *proxy.fault.lock().unwrap();
    let turn = proxy.asked.fetch_add(1, Ordering::Relaxed);
    // Not every so-manieth to the letter, which could be in step with what is asked.
    let now = alloy::primitives::keccak256(turn.to_be_bytes())[0].is_multiple_of(every);
    let spoiled = || proxy.spoiled.fetch_add(1, Ordering::Relaxed);
    if now && matches!(fault, Fault::Hangs) {
        spoiled();
        tokio::time::sleep(Duration::from_millis(100)).await;
        return (StatusCode::GATEWAY_TIMEOUT, "").into_response();
    }
    if now && matches!(fault, Fault::RateLimits) {
        spoiled();
        return (StatusCode::TOO_MANY_REQUESTS, "slow down").into_response();
    }
    let asked: Value = serde_json::from_slice(&body).unwrap();
    let sent = proxy.http.post(&proxy.behind).json(&asked).send().await;
    let Ok(sent) = sent else { return StatusCode::BAD_GATEWAY.into_response() };
    let Ok(mut said) = sent.json::<Value>().await else {
        return StatusCode::BAD_GATEWAY.into_response();
    };
    if now {
        let one = |asked: &Value, said: &mut Value| {
            if distort(fault, turn, asked, said) {
                spoiled();
            }
        };
        match (&asked, &mut said) {
            (Value::Array(asked), Value::Array(said)) => {
                asked.iter().zip(said.iter_mut()).for_each(|(asked, said)| one(asked, said));
                if fault == Fault::LeavesAnswersOut {
                    said.pop();
                    spoiled();
                }
            }
            (asked, said) => one(asked, said),
        }
        if fault == Fault::Breaks {
            let text = said.to_string();
            spoiled();
            return text[..text.len() / 2].to_owned().into_response();
        }
    }
    axum::Json(said).into_response()
}

/// Distorts one answer, if the fault has to do with it.
fn distort(fault: Fault, turn: u64, asked: &Value, said: &mut Value) -> bool {
    let is_head = asked["method"] == "eth_getBlockByNumber" && asked["params"][0] == "latest";
    let result = &mut said["result"];
    match (fault, asked["method"].as_str().unwrap()) {
        (Fault::Refuses, _) => {
            *said = json!({ "jsonrpc": "2.0", "id": asked["id"], "error": { "code": -32005, "message": "too much" } });
            true
        }
        (Fault::HighHead, _) if is_head => {
            result["number"] = json!("0xffffff");
            true
        }
        (Fault::LowHead, _) if is_head => {
            result["number"] = json!("0x3");
            true
        }
        (Fault::OtherHash, _) if is_head => {
            result["hash"] = json!(format!("{:#066x}", turn + 1));
            true
        }
        (Fault::LeavesLogsOut, "eth_getLogs") => {
            let logs = result.as_array_mut().unwrap();
            if logs.is_empty() {
                return false;
            }
            let place = usize::try_from(turn).unwrap() % logs.len();
            logs.remove(place);
            true
        }
        (Fault::LeavesAllOut, "eth_getLogs") => {
            let logs = result.as_array_mut().unwrap();
            let any = !logs.is_empty();
            logs.clear();
            any
        }
        (Fault::ChangesLogs, "eth_getLogs") => {
            let logs = result.as_array_mut().unwrap();
            let Some(log) = logs.iter_mut().find(|log| log["data"].as_str().unwrap().len() > 10)
            else {
                return false;
            };
            let data = log["data"].as_str().unwrap();
            // The last digit of the last argument.
            let digit = if data.ends_with('1') { '2' } else { '1' };
            log["data"] = json!(format!("{}{digit}", &data[..data.len() - 1]));
            true
        }
        (Fault::LeavesReceiptsOut, "eth_getBlockReceipts") => {
            let receipts = result.as_array_mut().unwrap();
            for receipt in receipts {
                if receipt["logs"].as_array_mut().unwrap().pop().is_some() {
                    return true;
                }
            }
            false
        }
        _ => false,
    }
}
