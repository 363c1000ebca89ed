//! `roadstead events`: what happened to a lease's pod.

use std::time::SystemTime;

use ::provider::wire::{Happening, LeaseEvent};

use crate::{
    cli::LeaseRef,
    output::{print, tame},
    remote::{Remote, Since, short_time},
    settings::Settings,
};

/// What `roadstead events` is asked for.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The lease's number, or the app's name
    lease: LeaseRef,
    /// Go on as things happen
    #[arg(long, short)]
    follow: bool,
    /// Only since then: 10m, 36h, 7d, or 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<Since>,
}

/// Prints what happened, a line each.
pub(crate) async fn run(settings: &Settings, args: &Args) -> anyhow::Result<()> {
    let since = args.since.as_ref().map(|since| since.unix(SystemTime::now())).transpose()?;
    let remote = Remote::find(settings, &args.lease).await?;
    let mut events = remote.client.events(remote.lease, since, args.follow).await?;
    while let Some(event) = events.next().await? {
        match settings.json {
            true => print(&serde_json::to_string(&event)?)?,
            false => print(&line(&event))?,
        }
    }
    Ok(())
}

fn line(event: &LeaseEvent) -> String {
    format!("{}  {}", tame(&short_time(&event.time)), tame(&words(&event.what)))
}

fn words(what: &Happening) -> String {
    match what {
        Happening::Seen { pod } => {
            format!("the provider has seen the lease; it is to run pod {pod}")
        }
        Happening::Fetching => "fetching its images".into(),
        Happening::Locked => "it waits for its app's key".into(),
        Happening::Starting => "starting".into(),
        Happening::Running => "running".into(),
        Happening::Failed { why } => format!("it could not be started: {why}"),
        Happening::HealthLost { service } => format!("{service}: its health check fails"),
        Happening::HealthRegained { service } => format!("{service}: healthy again"),
        Happening::Exited { service, out_of_memory: true, code } => {
            format!("{service}: ended with code {code}, as it needed more memory than it may have")
        }
        Happening::Exited { service, out_of_memory: false, code } => {
            format!("{service}: ended with code {code}")
        }
        Happening::Restarted { service } => format!("{service}: started again"),
        Happening::Stopped { service } => format!("{service}: stopped by the provider"),
        Happening::Paused => "paused, as the account is dry".into(),
        Happening::Held => "held at your wish".into(),
        Happening::Resumed => "goes on".into(),
        Happening::Maintenance { until, why } => {
            let until = until.as_ref().map(|until| format!(", until about {}", short_time(until)));
            let why = why.as_ref().map(|why| format!(": {why}"));
            let (until, why) = (until.unwrap_or_default(), why.unwrap_or_default());
            format!("the provider is in maintenance{until}{why}")
        }
        Happening::MaintenanceOver => "the provider's maintenance is over".into(),
        Happening::Amended { pod } => format!("it is to run pod {pod} from now on"),
        Happening::Challenged { by, until } => {
            format!("challenged by {by}, to be answered by {}", short_time(until))
        }
        Happening::Answered => "the provider answered the challenge".into(),
        Happening::Closed { reason: Some(reason) } => format!("closed: {reason}"),
        Happening::Closed { reason: None } => "closed".into(),
        Happening::Removed { volumes_until: Some(until) } => {
            format!("removed; its volumes are kept until {}", short_time(until))
        }
        Happening::Removed { volumes_until: None } => "removed".into(),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use protocol::lease::CloseReason;

    use super::*;

    #[test]
    fn events_read_well() {
        let check = |what: Happening, wanted: expect_test::Expect| {
            let time = "2026-01-31T12:00:00.123456789Z".to_owned();
            wanted.assert_eq(&line(&LeaseEvent { time, what }));
        };
        let service = || "web".to_owned();
        check(
            Happening::Exited { service: service(), code: 137, out_of_memory: true },
            expect![
                "2026-01-31 12:00:00  web: ended with code 137, as it needed more memory than it may have"
            ],
        );
        check(
            Happening::Closed { reason: Some(CloseReason::PayerDone) },
            expect!["2026-01-31 12:00:00  closed: its payer is done with it"],
        );
        check(
            Happening::Removed { volumes_until: Some("2026-02-03T12:00:00.000000000Z".into()) },
            expect!["2026-01-31 12:00:00  removed; its volumes are kept until 2026-02-03 12:00:00"],
        );
        check(
            Happening::Failed { why: "\u{1b}[2J".into() },
            expect!["2026-01-31 12:00:00  it could not be started:  [2J"],
        );
    }
}
