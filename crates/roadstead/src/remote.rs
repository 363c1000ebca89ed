//! A lease at its provider, as its payer sees it: whether it goes on or not.

use std::{
    convert::Infallible,
    fmt,
    str::FromStr,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, bail, ensure};
use protocol::lease::State as LeaseState;

use crate::{
    cli::LeaseRef, client::Client, deploy, publish, session::Session, settings::Settings,
    state::State,
};

/// A lease of this wallet's.
#[derive(Debug)]
pub(crate) struct Remote {
    /// Its number.
    pub(crate) lease: u64,
    /// Its provider.
    pub(crate) client: Client,
}

impl Remote {
    /// The lease that a person means.
    pub(crate) async fn find(settings: &Settings, lease: &LeaseRef) -> anyhow::Result<Self> {
        Self::of(&publish::session(settings).await?, settings, lease).await
    }

    /// The lease that a person means, of the wallet that is at hand.
    pub(crate) async fn of(
        session: &Session,
        settings: &Settings,
        lease: &LeaseRef,
    ) -> anyhow::Result<Self> {
        let id = State::read(&settings.home, session.chain().deployment())?.resolve(lease)?;
        let view = deploy::lease(session, id).await?;
        let state = LeaseState::try_from(view.lease.state)?;
        ensure!(state != LeaseState::None, "there is no lease {id} on this chain");
        let wallet = session.wallet();
        let payer = view.payer;
        ensure!(payer == wallet, "lease {id} is paid by {payer}, this wallet is {wallet}");
        let (client, _listing) = deploy::provider_of(session, view.provider).await?;
        Ok(Self { lease: id, client })
    }
}

/// Since when: `10m`, `36h`, `7d`, or a time as RFC 3339 has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Since(String);

impl FromStr for Since {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl Since {
    /// In Unix seconds, seen from `now`.
    pub(crate) fn unix(&self, now: SystemTime) -> anyhow::Result<u64> {
        let Self(text) = self;
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let format = &time::format_description::well_known::Rfc3339;
        if let Ok(time) = time::OffsetDateTime::parse(text, format) {
            return Ok(time.unix_timestamp().try_into().unwrap_or_default());
        }
        let ago = duration(text).with_context(|| {
            format!("{text:?} is neither a time such as 10m, 36h or 7d nor one such as 2026-01-31T12:00:00Z")
        })?;
        Ok(now.saturating_sub(ago).as_secs())
    }
}

/// Until when: in `30d`, or at a time as RFC 3339 has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Until(String);

impl FromStr for Until {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl Until {
    /// In Unix seconds, seen from `now`.
    pub(crate) fn unix(&self, now: u64) -> anyhow::Result<u64> {
        let Self(text) = self;
        let format = &time::format_description::well_known::Rfc3339;
        if let Ok(time) = time::OffsetDateTime::parse(text, format) {
            return Ok(time.unix_timestamp().try_into().unwrap_or_default());
        }
        let span = duration(text).with_context(|| {
            format!(
                "{text:?} is neither a time such as 36h or 30d nor one such as 2026-12-31T00:00:00Z"
            )
        })?;
        Ok(now.saturating_add(span.as_secs()))
    }
}

/// A time that something takes: `30s`, `10m`, `36h`, `7d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span(Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let span = duration(text).map(Self);
        span.map_err(|_err| format!("{text:?} is no time such as 30s, 10m, 36h or 7d"))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::output::span(self.secs()))
    }
}

impl Span {
    /// In seconds.
    pub(crate) fn secs(self) -> u64 {
        self.0.as_secs()
    }

    /// In seconds, for a field of 32 bits; `what` is the option that it comes from.
    pub(crate) fn secs32(self, what: &str) -> anyhow::Result<u32> {
        let secs = self.secs();
        u32::try_from(secs)
            .ok()
            .with_context(|| format!("{what}: {secs} s is more than 2^32 - 1 s"))
    }
}

fn duration(text: &str) -> anyhow::Result<Duration> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let secs = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        unit => bail!("{unit:?} is no unit of time"),
    };
    Ok(Duration::from_secs(number.parse::<u64>()?.saturating_mul(secs)))
}

/// The time as people at this place in the program read it, without its fractions: `2026-01-31 12:00:00`.
pub(crate) fn short_time(rfc3339: &str) -> String {
    rfc3339.chars().take(19).map(|c| if c == 'T' { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_said_in_two_ways() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let check = |text: &str, wanted: Option<u64>| {
            assert_eq!(text.parse::<Since>().unwrap().unix(now).ok(), wanted, "{text}");
        };
        check("10", Some(999_990));
        check("10m", Some(999_400));
        check("2h", Some(992_800));
        check("1d", Some(913_600));
        check("900d", Some(0));
        check("1970-01-02T00:00:00Z", Some(86_400));
        check("1970-01-02T01:00:00+01:00", Some(86_400));
        check("yesterday", None);
        check("5w", None);
        check("", None);
        assert_eq!(short_time("2026-01-31T12:00:00.123456789Z"), "2026-01-31 12:00:00");
    }
}
