//! Volumes of an exact size: a sparse file with ext4 in it, behind a loop device that the engine mounts.
//!
//! A pod fills its own volume and gets ENOSPC; it never fills the provider's disk. The engine is given a link in the
//! run folder, which a reboot empties: a stale device number never becomes another pod's volume.
//!
//! After its lease a volume is kept for a while, as the file alone, in another folder.
//!
//! What a container writes outside of its volumes is bounded in the same way: see `engine::layers`.

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
    #[error("the file of layer {0} is gone, and with it what its container wrote")]
    Lost(String),
}

/// Where the volumes' files and the links to their devices are.
#[derive(Debug, Clone)]
pub(crate) struct Volumes {
    files: PathBuf,
    layers: PathBuf,
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
        let layers = data.join("layers");
        for folder in [&files, &layers, &links, &kept, &mounts] {
            std::fs::create_dir_all(folder)?;
        }
        // What a provider that was killed left mounted.
        for entry in std::fs::read_dir(&mounts)? {
            unmount(&entry?.path());
        }
        Ok(Self { files, layers, kept, links, mounts, lock: Arc::default() })
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
        names(&self.files)
    }

    /// Mounts the file system of layer `name`, of `bytes`, over `folder`, if it is not mounted. One that is new gets a
    /// copy of what is in the folder, and of the other folders of `copies`, each under its name; afterwards what the
    /// folder has under the names in `moved` is in the file system alone. As long as the first of them is there, the copy is
    /// not whole, and everything else still is; it goes once the copy is on the disk, and before the other.
    pub(crate) async fn cover(
        &self,
        name: &str,
        bytes: u64,
        folder: &Path,
        copies: &[(String, PathBuf)],
        moved: [&str; 2],
    ) -> Result<(), VolumeError> {
        let _one_device_each = self.lock.lock().await;
        if is_mount_point(folder)? {
            return Ok(());
        }
        let file = self.layers.join(format!("{name}.ext4"));
        let [mark, other] = moved.map(|name| folder.join(name));
        if mark.exists() {
            // What broke off in between is begun anew.
            self.drop_file(&file).await?;
            self.format(&file, bytes, (0, 0)).await?;
            let place = tempfile::Builder::new().prefix(name).tempdir_in(&self.mounts)?.keep();
            let device = self.device(&file).await?;
            mount_layer(&device, &place)?;
            let place = Mounted { folder: place };
            copy(folder, place.path()).await?;
            for (name, from) in copies {
                let to = place.path().join(name);
                std::fs::create_dir_all(&to)?;
                copy(from, &to).await?;
            }
            drop(place);
            std::fs::File::open(&file)?.sync_all()?;
            std::fs::remove_dir_all(mark)?;
            std::fs::File::open(folder)?.sync_all()?;
        }
        if file.exists() && other.exists() {
            std::fs::remove_dir_all(other)?;
        }
        if !file.exists() {
            return Err(VolumeError::Lost(name.to_owned()));
        }
        let device = self.device(&file).await?;
        mount_layer(&device, folder)?;
        self.detach_when_unused(&device).await
    }

    /// Removes layer `name`, which nobody uses any more, and everything in it.
    pub(crate) async fn uncover(
        &self,
        name: &str,
        folder: Option<&Path>,
    ) -> Result<(), VolumeError> {
        let _one_device_each = self.lock.lock().await;
        if let Some(folder) = folder {
            unmount_now(folder)?;
        }
        self.drop_file(&self.layers.join(format!("{name}.ext4"))).await
    }

    /// The names of all layers.
    pub(crate) fn layers(&self) -> io::Result<Vec<String>> {
        names(&self.layers)
    }

    /// What layer `name` takes of the disk.
    pub(crate) fn layer_used(&self, name: &str) -> Option<u64> {
        let meta = std::fs::metadata(self.layers.join(format!("{name}.ext4"))).ok()?;
        Some(meta.blocks() * 512)
    }

    async fn drop_file(&self, file: &Path) -> Result<(), VolumeError> {
        if !file.exists() {
            return Ok(());
        }
        if let Some(device) = self.device_of(file).await? {
            self.detach_when_unused(&device).await?;
        }
        Ok(std::fs::remove_file(file)?)
    }

    async fn device(&self, file: &Path) -> Result<String, VolumeError> {
        match self.device_of(file).await? {
            Some(device) => Ok(device),
            None => run("losetup", &["--find", "--show", "--nooverlap", &text(file)]).await,
        }
    }

    /// The kernel does it once nothing is mounted of it.
    async fn detach_when_unused(&self, device: &str) -> Result<(), VolumeError> {
        run("losetup", &["--detach", device]).await.map(drop)
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
        std::fs::File::open(&draft)?.sync_all()?;
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

fn names(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        names.extend(name.strip_suffix(".ext4").map(str::to_owned));
    }
    Ok(names)
}

/// Whether another file system begins at `folder`, or a part of one.
pub(crate) fn is_mount_point(folder: &Path) -> io::Result<bool> {
    let device = |path: &Path| std::fs::metadata(path).map(|meta| meta.dev());
    Ok(device(folder)? != device(folder.parent().unwrap_or(folder))?)
}

fn mount_layer(device: &str, at: &Path) -> Result<(), VolumeError> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOATIME;
    Ok(mount(Some(device), at, Some("ext4"), flags, None::<&str>)?)
}

/// Mounts `from` at `at` as well, if nothing is mounted there.
pub(crate) fn bind(from: &Path, at: &Path) -> Result<(), VolumeError> {
    if is_mount_point(at)? {
        return Ok(());
    }
    Ok(mount(Some(from), at, None::<&str>, MsFlags::MS_BIND, None::<&str>)?)
}

/// Unmounts what is mounted at `folder`, if anything is. Whoever has something open there keeps it.
pub(crate) fn unmount_now(folder: &Path) -> Result<(), VolumeError> {
    match umount2(folder, MntFlags::MNT_DETACH) {
        Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => Ok(()),
        Err(err) => Err(err.into()),
    }
}

/// Copies what is in a folder, with everything that belongs to it.
async fn copy(from: &Path, to: &Path) -> Result<(), VolumeError> {
    let from = format!("{}/.", from.display());
    run("cp", &["--archive", "--one-file-system", "--", &from, &text(to)]).await.map(drop)
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
