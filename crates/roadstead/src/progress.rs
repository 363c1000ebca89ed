//! How far a deploy is, for whoever looks on.

use std::{fmt, io::IsTerminal as _, sync::Mutex};

use ::provider::wire::Phase;
use alloy::primitives::Address;
use indicatif::{ProgressBar, ProgressStyle};

use crate::output;

/// Something that happened on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Something was assumed.
    Note(String),
    /// So many providers are asked for a quote.
    Asking(usize),
    /// One of them makes no offer that can be taken.
    NoOffer {
        /// Who.
        provider: Address,
        /// Why.
        why: String,
    },
    /// A part of an image is on its way.
    Pushing {
        /// Which.
        what: String,
        /// Bytes that were sent.
        sent: u64,
        /// Bytes in all.
        total: u64,
    },
    /// The provider unpacks an image.
    Loading(String),
    /// A transaction is on its way, to do this.
    Sending(String),
    /// The lease is on the chain.
    Opened {
        /// Its number.
        lease: u64,
        /// The block.
        block: u64,
    },
    /// The provider is so far with it.
    Phase(Phase),
    /// The key of its encrypted images is on its way.
    Unlocking,
    /// The provider is not answering at the moment.
    Silent,
    /// It runs, and the chain does not know that yet.
    Activating,
}

/// Whoever looks on.
pub(crate) trait Progress: Sync {
    /// Is told of a step.
    fn step(&self, step: &Step);
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Note(note) => write!(f, "note: {note}"),
            Self::Asking(1) => write!(f, "asking one provider for a quote"),
            Self::Asking(count) => write!(f, "asking {count} providers for quotes"),
            Self::NoOffer { provider, why } => {
                write!(f, "no offer from {}: {why}", output::short(*provider))
            }
            Self::Pushing { what, sent, total } => {
                write!(
                    f,
                    "sending {what}: {} of {} KiB",
                    sent.div_ceil(1 << 10),
                    total.div_ceil(1 << 10)
                )
            }
            Self::Loading(image) => write!(f, "the provider unpacks image {image}"),
            Self::Sending(what) => write!(f, "sending the transaction that {what}"),
            Self::Opened { lease, block } => write!(f, "lease {lease} opened in block {block}"),
            Self::Phase(phase) => f.write_str(match phase {
                Phase::Seen => "the provider has seen it",
                Phase::Fetching => "fetching its images",
                Phase::Locked => "it waits for its app's key",
                Phase::Starting => "starting",
                Phase::Running => "running",
                Phase::Unhealthy => "running, but not healthy",
                Phase::Paused => "paused, as the account is dry",
                Phase::Held => "stopped at your wish",
                Phase::Failed => "it could not be started",
                Phase::Closed => "closed",
            }),
            Self::Unlocking => write!(f, "sending its app's key, sealed for this start"),
            Self::Silent => write!(f, "the provider does not answer at the moment; waiting"),
            Self::Activating => write!(f, "running; waiting for the chain to say so"),
        }
    }
}

/// Tells on standard error: with a moving line where that is a terminal, else with a line per step.
#[derive(Debug, Default)]
pub(crate) struct OnStderr {
    bar: Mutex<Option<ProgressBar>>,
    terminal: bool,
}

impl OnStderr {
    /// Looks whether there is a terminal.
    pub(crate) fn new() -> Self {
        Self { bar: Mutex::default(), terminal: std::io::stderr().is_terminal() }
    }
}

/// Nobody looks on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Silent;

impl Progress for Silent {
    fn step(&self, _step: &Step) {}
}

impl Progress for OnStderr {
    fn step(&self, step: &Step) {
        let mut bar = self.bar.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Step::Pushing { what, sent, total } = step {
            if self.terminal {
                let bar = bar.get_or_insert_with(|| ProgressBar::new(*total).with_style(style()));
                bar.set_length(*total);
                bar.set_message(what.clone());
                bar.set_position(*sent);
                return;
            }
            // Without a moving line, one when it is through.
            if sent < total {
                return;
            }
        }
        if let Some(bar) = bar.take() {
            bar.finish_and_clear();
        }
        eprintln!("{step}");
    }
}

fn style() -> ProgressStyle {
    let template = "sending {msg} {bar:24} {bytes} of {total_bytes}, {bytes_per_sec}";
    ProgressStyle::with_template(template).unwrap_or_else(|_err| ProgressStyle::default_bar())
}
