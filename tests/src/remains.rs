//! What a story leaves on the machine besides processes, and how it goes: also where the story was killed.
//!
//! Everything is written down in the story's folder before it comes to be, so that the next story can clear away after
//! one that did not get to it.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use alloy::primitives::Address;
use anyhow::Context as _;
use nix::{
    mount::{MntFlags, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    docker::Docker,
    process::{call, project},
};

/// What the names of stories' folders begin with.
const PREFIX: &str = "tests-";

/// A story's folder, with what it has elsewhere.
#[derive(Debug)]
pub(crate) struct Remains {
    pub(crate) folder: PathBuf,
}

impl Remains {
    /// A new folder, after those of stories that were killed are cleared away.
    pub(crate) async fn new() -> anyhow::Result<Self> {
        let parent = project().join(".roadstead");
        std::fs::create_dir_all(&parent)?;
        for entry in std::fs::read_dir(&parent)? {
            let folder = entry?.path();
            if is_orphan(&folder) {
                // Another story may be at it, too.
                let _cleared = Self { folder }.clear().await;
            }
        }
        let prefix = format!("{PREFIX}{}-", std::process::id());
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir_in(&parent)?.keep();
        Ok(Self { folder })
    }

    /// The name of the folder: nobody else has it.
    pub(crate) fn id(&self) -> String {
        self.folder.file_name().unwrap_or_default().to_string_lossy().to_lowercase()
    }

    fn note(&self, list: &str, line: &str) -> anyhow::Result<()> {
        let path = self.folder.join(list);
        let mut text = std::fs::read_to_string(&path).unwrap_or_default();
        text.push_str(line);
        text.push('\n');
        Ok(std::fs::write(path, text)?)
    }

    fn noted(&self, list: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.folder.join(list)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// A provider, whose labels things in Docker have.
    pub(crate) fn add_provider(&mut self, provider: Address) -> anyhow::Result<()> {
        self.note("providers", &provider.to_string())
    }

    /// An image in the machine's engine.
    pub(crate) fn add_image(&mut self, name: &str) -> anyhow::Result<()> {
        self.note("images", name)
    }

    /// A network namespace.
    pub(crate) fn add_netns(&mut self, name: &str) -> anyhow::Result<()> {
        self.note("netns", name)
    }

    /// A folder somewhere else.
    pub(crate) fn add_folder(&mut self, path: &Path) -> anyhow::Result<()> {
        self.note("folders", &path.display().to_string())
    }

    /// Removes all of it, if it was not yet. With the first thing that could not be removed; the others are, as far as
    /// they can.
    pub(crate) async fn clear(&self) -> anyhow::Result<()> {
        if !self.folder.exists() {
            return Ok(());
        }
        let mut outcome = Ok(());
        let mut keep = |done: anyhow::Result<()>| {
            let old = std::mem::replace(&mut outcome, Ok(()));
            outcome = old.and(done);
        };
        let folders: Vec<PathBuf> = self.noted("folders").into_iter().map(PathBuf::from).collect();
        let ours: Vec<&Path> = folders.iter().chain([&self.folder]).map(PathBuf::as_path).collect();
        // Providers first, so that nothing is made any more.
        keep(end_processes(&self.folder.join("provider").display().to_string()).await);
        let sockets = folders.iter().map(|folder| folder.join("docker.sock"));
        let hosts = sockets.filter(|socket| socket.exists());
        let hosts = hosts.map(|socket| Some(format!("unix://{}", socket.display())));
        for host in hosts.chain([None]) {
            let Ok(docker) = Docker::connect(host.as_deref()).await else { continue };
            for provider in self.noted("providers").iter().filter_map(|text| text.parse().ok()) {
                keep(docker.clear(provider).await);
            }
            for image in self.noted("images") {
                keep(docker.remove_image(&image).await);
            }
        }
        for folder in &ours {
            keep(end_processes(&folder.display().to_string()).await);
        }
        keep(detach(&self.folder).await);
        keep(unmount(&ours));
        for netns in self.noted("netns") {
            if Path::new("/run/netns").join(&netns).exists() {
                keep(call("ip", &["netns", "delete", &netns]).await.map(drop));
            }
        }
        for folder in ours.iter().filter(|folder| folder.exists()) {
            let name = folder.display().to_string();
            let removed = std::fs::remove_dir_all(folder);
            keep(removed.with_context(|| format!("{name} could not be removed")));
        }
        outcome
    }
}

/// Whether it is the folder of a story whose process is gone.
fn is_orphan(folder: &Path) -> bool {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
    let owner = owner.and_then(|owner| owner.parse::<u32>().ok());
    owner.is_some_and(|owner| !Path::new(&format!("/proc/{owner}")).exists())
}

impl Drop for Remains {
    /// For stories that end in a panic: there is a runtime already that must not be waited in.
    fn drop(&mut self) {
        let clear = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(self.clear())
        };
        let cleared = std::thread::scope(|scope| scope.spawn(clear).join());
        if let Ok(Err(err)) = cleared {
            eprintln!("something of {} is left: {err:#}", self.folder.display());
        }
    }
}

/// Ends the processes that have `name`, a path of ours, on their command line: providers, engines and what they started.
async fn end_processes(name: &str) -> anyhow::Result<()> {
    let me = std::process::id().to_string();
    for _ in 0..50 {
        let mut any = false;
        for entry in std::fs::read_dir("/proc")? {
            let entry = entry?;
            let number = entry.file_name().to_string_lossy().into_owned();
            let Ok(pid) = number.parse::<i32>() else { continue };
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if number != me && String::from_utf8_lossy(&line).contains(name) {
                any = true;
                // It may have ended meanwhile.
                let _gone = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        if !any {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    anyhow::bail!("processes of {name} do not end")
}

/// Detaches loop devices of files in `folder`.
pub(crate) async fn detach(folder: &Path) -> anyhow::Result<()> {
    let list = call("losetup", &["--noheadings", "--list", "--output", "NAME,BACK-FILE"]).await?;
    let folder = folder.display().to_string();
    for line in list.lines() {
        let Some((device, file)) = line.trim().split_once(' ') else { continue };
        if file.trim().starts_with(&folder) {
            call("losetup", &["--detach", device]).await?;
        }
    }
    Ok(())
}

/// Unmounts whatever is mounted in the folders, the innermost first.
pub(crate) fn unmount(folders: &[&Path]) -> anyhow::Result<()> {
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(Path::new);
    let ours: Vec<&Path> =
        points.filter(|point| folders.iter().any(|folder| point.starts_with(folder))).collect();
    for point in ours.into_iter().rev() {
        umount2(point, MntFlags::MNT_DETACH)
            .with_context(|| format!("{} could not be unmounted", point.display()))?;
    }
    Ok(())
}
