//! Volumes of an exact size: a sparse file with ext4 in it, behind a loop device that the engine mounts.
//!
//! A pod fills its own volume and gets ENOSPC; it never fills the provider's disk. The engine is given a link in the
//! run folder, which a reboot empties: a stale device number never becomes another pod's volume.
//!
//! After its lease a volume is kept for a while, as the file alone, in another folder.

use std::{
    io,
    os::unix::fs::{MetadataExt, symlink},
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tokio::{process::Command, sync::Mutex};

/// A volume that could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    #[error("{0} cannot be run; is it installed, and is the provider root?")]
    Missing(&'static str, #[source] io::Error),
    #[error("{0} failed: {1}")]
    Refused(&'static str, String),
    #[error("the volume's file could not be made")]
    Io(#[from] io::Error),
    #[error("the volume could not be mounted")]
    Mount(#[from] nix::Error),
    #[error("the volume is not attached: its pod has not started yet")]
    Detached,
}

/// Where the volumes' files and the links to their devices are.
#[derive(Debug, Clone)]
pub(crate) struct Volumes {
    files: PathBuf,
    kept: PathBuf,
    links: PathBuf,
    mounts: PathBuf,
    /// Held while a kept volume gets a device, or goes: two devices with one file would each write a file system of its own.
    lock: Arc<Mutex<()>>,
}

/// A volume's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VolumeFile {
    /// The volume's name in the engine.
    pub(crate) name: String,
    /// How large it is.
    pub(crate) size: u64,
    /// What it takes of the disk.
    pub(crate) used: u64,
    /// When it was last written.
    pub(crate) written: SystemTime,
}

/// A volume that can be read and written here, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Mounted {
    folder: PathBuf,
}

impl Mounted {
    pub(crate) fn path(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        unmount(&self.folder);
    }
}

/// Whoever has something open there is not disturbed.
fn unmount(folder: &Path) {
    if let Err(err) = umount2(folder, MntFlags::MNT_DETACH) {
        tracing::warn!(error = %err, "{} could not be unmounted", folder.display());
    }
    let _goes_with_the_run_folder = std::fs::remove_dir(folder);
}

impl Volumes {
    /// Volumes with their files in `data` and links in `run`.
    pub(crate) fn open(data: &Path, run: &Path) -> io::Result<Self> {
        let (files, links) = (data.join("volumes"), run.join("volumes"));
        let (kept, mounts) = (data.join("kept"), run.join("mounts"));
        for folder in [&files, &links, &kept, &mounts] {
            std::fs::create_dir_all(folder)?;
        }
        // What a provider that was killed left mounted.
        for entry in std::fs::read_dir(&mounts)? {
            unmount(&entry?.path());
        }
        Ok(Self { files, kept, links, mounts, lock: Arc::default() })
    }

    /// A device with the file system of volume `name`, made if it is not there. Its root belongs to `owner`.
    pub(crate) async fn attach(
        &self,
        name: &str,
        bytes: u64,
        owner: (u32, u32),
    ) -> Result<PathBuf, VolumeError> {
        let file = self.files.join(format!("{name}.ext4"));
        if !file.exists() {
            self.format(&file, bytes, owner).await?;
        }
        let link = self.links.join(name);
        let device = match self.device_of(&file).await? {
            Some(device) => device,
            None => run("losetup", &["--find", "--show", "--nooverlap", &text(&file)]).await?,
        };
        if std::fs::read_link(&link).ok().as_deref() != Some(Path::new(&device)) {
            let _none_before = std::fs::remove_file(&link);
            symlink(&device, &link)?;
        }
        Ok(link)
    }

    /// Removes volume `name` and everything in it.
    pub(crate) async fn remove(&self, name: &str) -> Result<(), VolumeError> {
        let file = self.files.join(format!("{name}.ext4"));
        if file.exists()
            && let Some(device) = self.device_of(&file).await?
        {
            run("losetup", &["--detach", &device]).await?;
        }
        for path in [file, self.links.join(name)] {
            match std::fs::remove_file(path) {
                Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err.into()),
                _removed_or_gone => (),
            }
        }
        Ok(())
    }

    /// Detaches volume `name` and keeps its file.
    pub(crate) async fn keep(&self, name: &str) -> Result<(), VolumeError> {
        let file = self.files.join(format!("{name}.ext4"));
        if let Some(device) = self.device_of(&file).await? {
            run("losetup", &["--detach", &device]).await?;
        }
        match std::fs::remove_file(self.links.join(name)) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err.into()),
            _removed_or_gone => (),
        }
        Ok(std::fs::rename(file, self.kept.join(format!("{name}.ext4")))?)
    }

    /// The volumes that are kept after their lease.
    pub(crate) fn kept(&self) -> io::Result<Vec<VolumeFile>> {
        let mut kept = Vec::new();
        for entry in std::fs::read_dir(&self.kept)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(name) = name.strip_suffix(".ext4") {
                kept.push(volume_file(name, &entry.metadata()?));
            }
        }
        kept.sort_by(|one, two| one.name.cmp(&two.name));
        Ok(kept)
    }

    /// Removes a kept volume and everything in it.
    pub(crate) async fn discard(&self, name: &str) -> io::Result<()> {
        let _no_device_is_made_meanwhile = self.lock.lock().await;
        std::fs::remove_file(self.kept.join(format!("{name}.ext4")))
    }

    /// The file of a volume whose lease goes on.
    pub(crate) fn file(&self, name: &str) -> Option<VolumeFile> {
        let meta = std::fs::metadata(self.files.join(format!("{name}.ext4"))).ok()?;
        Some(volume_file(name, &meta))
    }

    /// Mounts a volume, `kept` or of a lease that goes on.
    pub(crate) async fn mount(&self, name: &str, kept: bool) -> Result<Mounted, VolumeError> {
        let _one_device_each = self.lock.lock().await;
        let folder = match kept {
            true => &self.kept,
            false => &self.files,
        };
        let file = folder.join(format!("{name}.ext4"));
        let device = match self.device_of(&file).await? {
            Some(device) => device,
            None if kept => {
                run("losetup", &["--find", "--show", "--nooverlap", &text(&file)]).await?
            }
            None => return Err(VolumeError::Detached),
        };
        let place = tempfile::Builder::new().prefix(name).tempdir_in(&self.mounts)?;
        let flags =
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_NOATIME;
        let mounted = mount(Some(device.as_str()), place.path(), Some("ext4"), flags, None::<&str>);
        if kept {
            // The kernel does it once nobody uses the device any more.
            run("losetup", &["--detach", &device]).await?;
        }
        mounted?;
        Ok(Mounted { folder: place.keep() })
    }

    /// The names of all volumes.
    pub(crate) fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.files)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            names.extend(name.strip_suffix(".ext4").map(str::to_owned));
        }
        Ok(names)
    }

    /// Makes the file under another name first, so that a half-made one is never taken for a volume.
    async fn format(&self, file: &Path, bytes: u64, owner: (u32, u32)) -> Result<(), VolumeError> {
        let draft = file.with_extension("draft");
        std::fs::File::create(&draft)?.set_len(bytes)?;
        let root = format!("root_owner={}:{},lazy_itable_init=1", owner.0, owner.1);
        let path = text(&draft);
        run("mkfs.ext4", &["-q", "-F", "-m", "0", "-E", &root, &path]).await?;
        // An empty volume is what an image's own files are copied into; `lost+found` would prevent that.
        run("debugfs", &["-w", "-R", "rmdir lost+found", &path]).await?;
        std::fs::rename(&draft, file)?;
        Ok(())
    }

    async fn device_of(&self, file: &Path) -> Result<Option<String>, VolumeError> {
        let list =
            run("losetup", &["--associated", &text(file), "--noheadings", "--output", "NAME"])
                .await?;
        Ok(list.lines().next().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()))
    }
}

fn volume_file(name: &str, meta: &std::fs::Metadata) -> VolumeFile {
    VolumeFile {
        name: name.to_owned(),
        size: meta.len(),
        used: meta.blocks() * 512,
        written: meta.modified().unwrap_or(SystemTime::UNIX_EPOCH),
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

async fn run(program: &'static str, args: &[&str]) -> Result<String, VolumeError> {
    let output = Command::new(program).args(args).output().await;
    let output = output.map_err(|err| VolumeError::Missing(program, err))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(VolumeError::Refused(program, words));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
