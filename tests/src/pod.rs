//! Pods to deploy: the guestbook as it is in the examples, and a probe.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tempfile::NamedTempFile;
use tokio::process::Command;

use crate::{
    docker::Docker,
    process::{project, run},
    remains::Remains,
};

/// A pod file in a folder of its own.
#[derive(Debug, Clone)]
pub struct PodFile {
    path: PathBuf,
    text: String,
    /// The HTTP host under which it answers.
    pub host: String,
}

/// An image of a story's own.
#[derive(Debug, Clone)]
pub struct Image {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
}

/// The key with which the guestbook signs its forms.
const KEY: &str =
    "GUESTBOOK_SESSION_KEY=00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n";

impl PodFile {
    fn write(folder: &Path, host: &str, text: String) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let path = folder.join("compose.yaml");
        std::fs::write(&path, &text)?;
        Ok(Self { path, text, host: host.to_owned() })
    }

    /// The guestbook of the examples, with a key.
    pub(crate) fn guestbook(folder: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(project().join("examples/guestbook/compose.yaml"))?;
        let pod = Self::write(folder, "guestbook.localhost", text)?;
        std::fs::write(folder.join(".env"), KEY)?;
        Ok(pod)
    }

    /// A probe that serves, and what `more` says of its one service.
    pub(crate) fn probe(folder: &Path, image: &str, more: &str) -> anyhow::Result<Self> {
        let name = folder.file_name().unwrap_or_default().display();
        let host = format!("{name}.localhost");
        let text = format!(
            r#"services:
  web:
    image: {image}
    command: ["/probe", "serve", "8080"]
    ports: ["8080"]
    healthcheck: {{ test: ["CMD", "/probe", "health", "8080"], interval: 1s, timeout: 3s }}
    stop_signal: SIGKILL
    restart: unless-stopped
    deploy: {{ resources: {{ limits: {{ cpus: "0.25", memory: 32M }} }} }}
{more}
x-roadstead:
  ingress: {{ {host}: "web:8080" }}
"#
        );
        Self::write(folder, &host, text)
    }

    /// The same pod, with `from` replaced by `to`; in the same file.
    ///
    /// # Errors
    /// When there is no `from` in it.
    pub fn change(&mut self, from: &str, to: &str) -> anyhow::Result<()> {
        anyhow::ensure!(self.text.contains(from), "there is no {from:?} in\n{}", self.text);
        self.text = self.text.replace(from, to);
        Ok(std::fs::write(&self.path, &self.text)?)
    }

    /// Where it is.
    pub fn path(&self) -> &str {
        self.path.to_str().unwrap_or_default()
    }
}

impl Image {
    /// The probe, once more as a program that asks to run as root, in an image that has nothing else but a user and some
    /// folders; `salt` makes it another image, and `line` is one of a Dockerfile.
    pub(crate) async fn probe(
        docker: &Docker,
        remains: &mut Remains,
        name: &str,
        salt: &str,
        line: &str,
    ) -> anyhow::Result<Self> {
        let program = std::fs::read(program().await?)?;
        let mut tar = tar::Builder::new(Vec::new());
        for (path, bytes, mode) in [
            ("probe", program.as_slice(), 0o755),
            ("salt", salt.as_bytes(), 0o644),
            ("etc/passwd", b"prober:x:1234:1235::/:\n", 0o644),
        ] {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len().try_into()?);
            header.set_mode(mode);
            header.set_cksum();
            tar.append_data(&mut header, path, bytes)?;
        }
        let mut rootly = tar::Header::new_gnu();
        rootly.set_entry_type(tar::EntryType::Regular);
        rootly.set_size(program.len().try_into()?);
        rootly.set_mode(0o4755);
        rootly.set_cksum();
        tar.append_data(&mut rootly, "rootly", program.as_slice())?;
        for folder in ["mnt", "tmp"] {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Directory);
            header.set_size(0);
            header.set_mode(0o1777);
            header.set_cksum();
            tar.append_data(&mut header, folder, [].as_slice())?;
        }
        Self::import(docker, remains, name, tar.into_inner()?, line).await
    }

    /// The machine's memory, as a file.
    pub(crate) async fn device(
        docker: &Docker,
        remains: &mut Remains,
        name: &str,
    ) -> anyhow::Result<Self> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Char);
        header.set_device_major(1)?;
        header.set_device_minor(1)?;
        header.set_size(0);
        header.set_mode(0o666);
        header.set_cksum();
        tar.append_data(&mut header, "dev/mem", [].as_slice())?;
        Self::import(docker, remains, name, tar.into_inner()?, "").await
    }

    async fn import(
        docker: &Docker,
        remains: &mut Remains,
        name: &str,
        rootfs: Vec<u8>,
        line: &str,
    ) -> anyhow::Result<Self> {
        let id = docker.import(rootfs, line).await?;
        let repository = format!("roadstead-tests/{}", remains.id());
        let name = format!("{repository}:{name}");
        remains.add_image(&name)?;
        let tag = name.rsplit(':').next().unwrap_or_default();
        docker.tag(&id, &repository, tag).await?;
        Ok(Self { name, id })
    }
}

/// The probe, built if it is not, or is older than its source.
pub(crate) async fn program() -> anyhow::Result<PathBuf> {
    let folder = project().join("tests/probe");
    let (source, escape) = (folder.join("main.rs"), folder.join("escape.rs"));
    let folder = std::env::current_exe()?;
    let folder = folder.parent().context("this program lies nowhere")?;
    let program = folder.join("roadstead-probe");
    let age = |path: &Path| std::fs::metadata(path).and_then(|meta| meta.modified());
    let newer =
        |source: &Path| age(&program).is_ok_and(|built| age(source).is_ok_and(|at| built > at));
    if newer(&source) && newer(&escape) {
        return Ok(program);
    }
    // Under another name first: another test may be about to run it.
    let draft = NamedTempFile::new_in(folder)?.into_temp_path();
    let mut rustc = Command::new("rustc");
    rustc
        .args(["--edition", "2024", "-C", "target-feature=+crt-static", "-C", "strip=symbols"])
        .arg("-o")
        .arg(&draft)
        .arg(source);
    run(&mut rustc).await?;
    draft.persist(&program)?;
    Ok(program)
}
