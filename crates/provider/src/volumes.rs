//! Volumes of an exact size: a sparse file with ext4 in it, behind a loop device that the engine mounts.
//!
//! A pod fills its own volume and gets ENOSPC; it never fills the provider's disk. The engine is given a link in the
//! run folder, which a reboot empties: a stale device number never becomes another pod's volume.

use std::{
    io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use tokio::process::Command;

/// A volume that could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    #[error("{0} cannot be run; is it installed, and is the provider root?")]
    Missing(&'static str, #[source] io::Error),
    #[error("{0} failed: {1}")]
    Refused(&'static str, String),
    #[error("the volume's file could not be made")]
    Io(#[from] io::Error),
}

/// Where the volumes' files and the links to their devices are.
#[derive(Debug, Clone)]
pub(crate) struct Volumes {
    files: PathBuf,
    links: PathBuf,
}

impl Volumes {
    /// Volumes with their files in `data` and links in `run`.
    pub(crate) fn open(data: &Path, run: &Path) -> io::Result<Self> {
        let (files, links) = (data.join("volumes"), run.join("volumes"));
        std::fs::create_dir_all(&files)?;
        std::fs::create_dir_all(&links)?;
        Ok(Self { files, links })
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
