//! `roadstead volume`: what is in a pod's volumes, out and in, and for a while after its end.

use std::path::{Path, PathBuf};

use ::provider::wire::VolumeStatus;
use anyhow::{Context as _, bail, ensure};
use clap::Subcommand;

use crate::{
    cli::LeaseRef,
    client::Import,
    output::{self, print, table, tame},
    publish::interruptible,
    remote::{Remote, short_time},
    settings::Settings,
    stats::bytes,
    tars,
};

/// For how many seconds a pod is held without being asked again, and after how many it is asked.
const HOLD: u64 = 120;
const RENEW: std::time::Duration = std::time::Duration::from_secs(40);

/// What to do with volumes.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List the volumes of a lease, also of one that is closed, as long as they are kept
    #[command(after_help = "Example:\n  roadstead volume ls shop")]
    Ls {
        /// The lease's number, or the app's name
        lease: LeaseRef,
    },
    /// Write what is in a volume into a tar
    #[command(
        after_help = "Examples:\n  roadstead volume export shop data shop-data.tar\n  roadstead volume export 7 data - | tar -t"
    )]
    Export {
        /// The lease's number, or the app's name
        lease: LeaseRef,
        /// The volume's name in the pod file
        volume: String,
        /// Where to; - is standard output [default: VOLUME.tar]
        file: Option<PathBuf>,
        /// Freeze the pod meanwhile, so that nothing changes on the way
        #[arg(long)]
        pause: bool,
    },
    /// Fill a volume of a lease that runs from a tar; its pod is stopped meanwhile, and started again
    #[command(
        after_help = "Examples:\n  roadstead volume import shop data shop-data.tar --replace\n  roadstead volume export 7 data - | roadstead volume import 8 data -"
    )]
    Import {
        /// The lease's number, or the app's name
        lease: LeaseRef,
        /// The volume's name in the pod file
        volume: String,
        /// Where from; - is standard input
        file: PathBuf,
        /// Remove what is there first
        #[arg(long)]
        replace: bool,
        /// Leave the pod running, although it may have the volume's files open
        #[arg(long)]
        live: bool,
    },
    /// Remove a volume that is kept of a closed lease
    #[command(after_help = "Example:\n  roadstead volume rm 7 data")]
    Rm {
        /// The lease's number, or the app's name
        lease: LeaseRef,
        /// The volume's name in the pod file
        volume: String,
    },
}

/// Does what was asked.
pub(crate) async fn run(settings: &Settings, verb: &Verb) -> anyhow::Result<()> {
    match verb {
        Verb::Ls { lease } => list(settings, &Remote::find(settings, lease).await?).await,
        Verb::Export { lease, volume, file, pause } => {
            let file = file.clone().unwrap_or_else(|| format!("{volume}.tar").into());
            let remote = Remote::find(settings, lease).await?;
            export(settings, &remote, volume, &file, *pause).await
        }
        Verb::Import { lease, volume, file, replace, live } => {
            let how = Import { replace: *replace, live: *live, mirror: false };
            let remote = Remote::find(settings, lease).await?;
            import(settings, &remote, volume, file, how).await
        }
        Verb::Rm { lease, volume } => {
            let remote = Remote::find(settings, lease).await?;
            remote.client.remove_volume(remote.lease, volume).await?;
            let value = serde_json::json!({ "lease": remote.lease, "volume": volume });
            output::show(settings.json, &value, || format!("volume {volume} is gone"))
        }
    }
}

async fn list(settings: &Settings, remote: &Remote) -> anyhow::Result<()> {
    let volumes = remote.client.volumes(remote.lease).await?;
    output::show(settings.json, &volumes, || listed(&volumes))
}

fn listed(volumes: &[VolumeStatus]) -> String {
    if volumes.is_empty() {
        return "there are no volumes".into();
    }
    let rows = volumes.iter().map(|volume| {
        let until = volume.kept_until.as_deref();
        vec![
            tame(&volume.name),
            bytes(volume.size.0),
            bytes(volume.used.0),
            until.map_or("in use".into(), |until| {
                format!("kept until {}", tame(&short_time(until)))
            }),
        ]
    });
    table(&["VOLUME", "SIZE", "USED", "STATE"], rows)
}

async fn export(
    settings: &Settings,
    remote: &Remote,
    volume: &str,
    file: &Path,
    pause: bool,
) -> anyhow::Result<()> {
    let (tar, _begun) = remote.client.export(remote.lease, volume, pause, None).await?;
    if file.as_os_str() == "-" {
        tars::written(tar, std::io::stdout()).await?;
        return Ok(());
    }
    // Half a tar never has the name of a whole one.
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let cannot = || format!("{} cannot be written", file.display());
    let mut draft =
        tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new("."))).with_context(cannot)?;
    let size = tars::written(tar, &mut draft).await.with_context(cannot)?;
    draft.persist(file).map_err(|err| err.error).with_context(cannot)?;
    let value =
        serde_json::json!({ "lease": remote.lease, "volume": volume, "file": file, "bytes": size });
    output::show(settings.json, &value, || {
        format!(
            "volume {volume} of lease {} is in {}, {}",
            remote.lease,
            file.display(),
            bytes(size)
        )
    })
}

async fn import(
    settings: &Settings,
    remote: &Remote,
    volume: &str,
    file: &Path,
    how: Import,
) -> anyhow::Result<()> {
    let (client, lease) = (&remote.client, remote.lease);
    // Looked at before anything is stopped for it.
    let tar = tars::read(file).await?;
    let volumes = client.volumes(lease).await?;
    let Some(status) = volumes.iter().find(|status| status.name == volume) else {
        let names: Vec<_> = volumes.iter().map(|status| tame(&status.name)).collect();
        bail!("lease {lease} has no volume {volume}; it has: {}", names.join(", "));
    };
    ensure!(
        status.kept_until.is_none(),
        "lease {lease} is closed; import into a lease that runs, such as one that `roadstead deploy` opens"
    );
    let importing = async { Ok(client.import(lease, volume, how, tar).await?) };
    let words = format!("interrupted; volume {volume} may be filled in part");
    let importing = interruptible(importing, &words);
    let done = match how.live {
        true => importing.await,
        false => held(remote, importing).await,
    };
    let done = done.with_context(|| format!("volume {volume} of lease {lease} was not filled"))?;
    let value = serde_json::json!({
        "lease": lease,
        "volume": volume,
        "entries": done.entries,
        "bytes": done.bytes,
    });
    output::show(settings.json, &value, || {
        format!("{} files and folders are in volume {volume}, {}", done.entries, bytes(done.bytes))
    })
}

/// Does `work` while the pod of a lease is stopped. Whatever comes of it, the pod goes on afterwards.
pub(crate) async fn held<T>(
    remote: &Remote,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let (client, lease) = (&remote.client, remote.lease);
    client.hold(lease, HOLD).await.with_context(|| format!("lease {lease} was not stopped"))?;
    let outcome = tokio::select! {
        outcome = work => outcome,
        never = keep_held(remote) => match never {},
    };
    let released = client.release(lease).await;
    match (outcome, released) {
        (outcome, Ok(())) => outcome,
        (outcome, Err(err)) => {
            print(&format!(
                "note: lease {lease} could not be started again at once and starts by itself in {HOLD} seconds: {err}"
            ))?;
            outcome
        }
    }
}

/// Asks for a hold again and again before it is over.
pub(crate) async fn keep_held(remote: &Remote) -> std::convert::Infallible {
    loop {
        tokio::time::sleep(RENEW).await;
        if let Err(err) = remote.client.hold(remote.lease, HOLD).await {
            tracing::warn!(error = %err, "lease {} could not be held longer", remote.lease);
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use protocol::resources::Bytes;

    use super::*;

    #[test]
    fn volumes_are_listed_for_people() {
        let volume = |name: &str, until: Option<&str>| VolumeStatus {
            name: name.into(),
            size: Bytes(1 << 30),
            used: Bytes(5 << 20),
            kept_until: until.map(str::to_owned),
        };
        let volumes = [volume("data", None), volume("old", Some("2026-01-31T12:00:00.000000000Z"))];
        expect![[r#"
            VOLUME  SIZE      USED      STATE
            data    1.00 GiB  5.00 MiB  in use
            old     1.00 GiB  5.00 MiB  kept until 2026-01-31 12:00:00"#]]
        .assert_eq(&listed(&volumes));
    }
}
