//! `roadstead cp`: files between here and a container.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context as _, bail, ensure};

use crate::{cli::LeaseRef, output, remote::Remote, settings::Settings, tars};

/// What `roadstead cp` is asked for.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What: a path here, LEASE:PATH, or - for a tar on standard input
    from: Place,
    /// Where to: a path here, LEASE:PATH, or - for a tar on standard output
    to: Place,
    /// Of this service, where there are several
    #[arg(long, short, value_name = "NAME")]
    service: Option<String>,
}

/// Where something is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Here(PathBuf),
    There(LeaseRef, String),
    /// Standard input or output.
    Pipe,
}

impl FromStr for Place {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, std::convert::Infallible> {
        if text == "-" {
            return Ok(Self::Pipe);
        }
        Ok(match text.split_once(':') {
            // A path here that has a colon is told by its beginning.
            Some((lease, path)) if !lease.is_empty() && !lease.contains(['/', '.']) => {
                Self::There(lease.parse()?, absolute(path))
            }
            Some(_) | None => Self::Here(text.into()),
        })
    }
}

/// Paths in a container start at its root, as in `docker cp`.
fn absolute(path: &str) -> String {
    format!("/{}", path.trim_start_matches('/'))
}

/// Copies.
pub(crate) async fn run(settings: &Settings, args: &Args) -> anyhow::Result<()> {
    let service = args.service.as_deref();
    match (&args.from, &args.to) {
        (Place::There(lease, path), to) if !matches!(to, Place::There(..)) => {
            let remote = Remote::find(settings, lease).await?;
            download(settings, &remote, service, path, to).await
        }
        (from, Place::There(lease, path)) if !matches!(from, Place::There(..)) => {
            let remote = Remote::find(settings, lease).await?;
            upload(settings, &remote, service, from, path).await
        }
        _neither_or_both => {
            bail!("one of the two has to be in a container: LEASE:PATH, as in shop:/etc/hosts")
        }
    }
}

async fn download(
    settings: &Settings,
    remote: &Remote,
    service: Option<&str>,
    path: &str,
    to: &Place,
) -> anyhow::Result<()> {
    let tar = remote.client.download(remote.lease, service, path).await?;
    let Place::Here(target) = to else {
        tars::written(tar, std::io::stdout()).await?;
        return Ok(());
    };
    let named = Path::new(path).file_name();
    let (folder, name) = match target.is_dir() {
        true => (target.clone(), named.unwrap_or("root".as_ref()).to_owned()),
        false => beside(target)?,
    };
    let whole = folder.join(&name);
    let done = tars::unpacked(tar, folder, name)
        .await
        .with_context(|| format!("{} was not copied to {}", path, target.display()))?;
    let value = serde_json::json!({ "path": whole, "entries": done.entries, "bytes": done.bytes });
    output::show(settings.json, &value, || {
        format!("copied {} bytes to {}", done.bytes, whole.display())
    })
}

/// The folder and the name of what is to be made at a path.
fn beside(path: &Path) -> anyhow::Result<(PathBuf, OsString)> {
    let name = path.file_name().with_context(|| format!("{} has no name", path.display()))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    ensure!(folder.is_dir(), "there is no folder {}; make it first", folder.display());
    ensure!(
        !path.as_os_str().to_string_lossy().ends_with('/'),
        "there is no folder {}; make it first",
        path.display()
    );
    Ok((folder.to_owned(), name.to_owned()))
}

async fn upload(
    settings: &Settings,
    remote: &Remote,
    service: Option<&str>,
    from: &Place,
    path: &str,
) -> anyhow::Result<()> {
    let (client, lease) = (&remote.client, remote.lease);
    let there = client.stat(lease, service, path).await?;
    let Place::Here(source) = from else {
        let folder = there.as_ref().is_some_and(|there| there.folder);
        ensure!(folder, "{path} is no folder in the container; a tar is unpacked in one");
        let (tar, count) = tars::counted(tars::read(Path::new("-")).await?);
        client.upload(lease, service, path, tar).await?;
        return copied(settings, path, count.load(std::sync::atomic::Ordering::Relaxed));
    };
    let meta = std::fs::metadata(source);
    let meta = meta.with_context(|| format!("{} cannot be read", source.display()))?;
    let own = std::fs::canonicalize(source)?.file_name().map(ToOwned::to_owned);
    let (folder, name, user) = match there {
        Some(there) if there.folder => {
            let name = own.with_context(|| format!("{} has no name", source.display()))?;
            (path.to_owned(), name, there.user)
        }
        Some(_) if meta.is_dir() => {
            bail!("{path} is a file there and {} a folder", source.display())
        }
        other => {
            let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
            ensure!(!name.is_empty(), "there is no folder {path} in the container; make it first");
            let folder = absolute(folder);
            let parent = client.stat(lease, service, &folder).await?;
            let parent = parent.filter(|parent| parent.folder);
            let parent =
                parent.with_context(|| format!("there is no folder {folder} in the container"))?;
            (folder, name.into(), other.map_or(parent.user, |there| there.user))
        }
    };
    let (tar, count) = tars::counted(tars::packed(source.clone(), name.clone(), user));
    client.upload(lease, service, &folder, tar).await?;
    let whole = format!("{}/{}", folder.trim_end_matches('/'), name.to_string_lossy());
    copied(settings, &whole, count.load(std::sync::atomic::Ordering::Relaxed))
}

fn copied(settings: &Settings, path: &str, bytes: u64) -> anyhow::Result<()> {
    output::show(settings.json, &serde_json::json!({ "path": path, "tarBytes": bytes }), || {
        format!("copied to {path}, {bytes} bytes as a tar")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_here_or_there() {
        let check = |text: &str, wanted: Place| assert_eq!(text.parse(), Ok(wanted), "{text}");
        check("-", Place::Pipe);
        check("7:/etc", Place::There(LeaseRef::Number(7), "/etc".into()));
        check("shop:etc", Place::There(LeaseRef::App("shop".into()), "/etc".into()));
        check("shop:", Place::There(LeaseRef::App("shop".into()), "/".into()));
        check("./a:b", Place::Here("./a:b".into()));
        check("/a:b", Place::Here("/a:b".into()));
        check("file", Place::Here("file".into()));
    }

    #[test]
    fn copies_get_the_name_that_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let new = folder.path().join("new");
        assert_eq!(beside(&new).unwrap(), (folder.path().to_owned(), "new".into()));
        assert_eq!(beside(Path::new("new")).unwrap().0, Path::new("."));
        let err = beside(&folder.path().join("no/new")).unwrap_err().to_string();
        assert!(err.contains("make it first"), "{err}");
        let slash = format!("{}/", new.display());
        assert!(beside(Path::new(&slash)).is_err());
    }
}
