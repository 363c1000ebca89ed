//! Which wallet has shown which pushed image: all of its parts, byte for byte. Nobody else may use it as a pushed one,
//! and to a wallet that has not shown it an image is not there.
//!
//! Any wallet that is signed in may show images, each of which costs it an upload. The worst of them fills the record: it is
//! bounded, for each wallet and for all, and what was used longest ago makes room, that of wallets that pay for a lease last.
//! Who loses its entry by that uploads once more at its next quote; what runs goes on until it has to be started again.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use alloy::primitives::Address;
use protocol::{
    lease::State,
    pod::{Digest, ImageRef, Pod},
};

use crate::{
    engine::{Engine, EngineError},
    reconcile::Shared,
};

/// The most images of one wallet, and of all.
const MAX: (usize, usize) = (256, 8_192);

/// A folder of empty files, one for each wallet and image, whose age says when it was used.
#[derive(Debug)]
pub(crate) struct Shown {
    dir: PathBuf,
    /// The most entries of one wallet, and of all.
    most: (usize, usize),
}

impl Shown {
    pub(crate) fn open(data: &Path) -> io::Result<Self> {
        let dir = data.join("shown");
        std::fs::create_dir_all(&dir)?;
        Ok(Self { dir, most: MAX })
    }

    fn path(&self, wallet: Address, image: &Digest) -> PathBuf {
        let image = image.as_str().trim_start_matches("sha256:");
        self.dir.join(format!("{}-{image}", hex::encode(wallet)))
    }

    /// Whether `wallet` may use the image, if it is here.
    pub(crate) fn has(&self, wallet: Address, image: &Digest) -> bool {
        let entry = std::fs::OpenOptions::new().append(true).open(self.path(wallet, image));
        entry.and_then(|entry| entry.set_modified(SystemTime::now())).is_ok()
    }

    /// Writes down that `wallet` has shown the image. `pays` tells who makes room last.
    fn note(&self, wallet: Address, image: &Digest, pays: impl Fn(&str) -> bool) -> io::Result<()> {
        if self.has(wallet, image) {
            return Ok(());
        }
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // What was removed meanwhile makes room, too.
            let Ok(used) = entry.metadata().and_then(|meta| meta.modified()) else { continue };
            let pays = name.split('-').next().is_some_and(&pays);
            entries.push((pays, used, name));
        }
        entries.sort();
        let (own, all) = self.most;
        let whose = hex::encode(wallet);
        let theirs: Vec<_> =
            entries.iter().filter(|(_, _, name)| name.starts_with(&whose)).collect();
        let leave = match (theirs.len() + 1).saturating_sub(own) {
            0 => entries.iter().take((entries.len() + 1).saturating_sub(all)).collect(),
            many => theirs.into_iter().take(many).collect::<Vec<_>>(),
        };
        for (_, _, name) in leave {
            remove(&self.dir.join(name))?;
        }
        std::fs::File::create(self.path(wallet, image))?;
        Ok(())
    }

    /// All images that somebody has shown.
    fn images(&self) -> io::Result<BTreeSet<Digest>> {
        let mut images = BTreeSet::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let image = name.split_once('-').map(|(_, hex)| format!("sha256:{hex}"));
            images.extend(image.and_then(|image| image.parse().ok()));
        }
        Ok(images)
    }

    fn forget(&self, image: &Digest) -> io::Result<()> {
        let end = image.as_str().trim_start_matches("sha256:");
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().ends_with(end) {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Forgets the images that the engine has no more.
    pub(crate) async fn tidy(&self, engine: &Engine) -> io::Result<()> {
        // An engine that does not answer has removed nothing.
        for image in engine.gone(self.images()?).await.map_err(io::Error::other)? {
            self.forget(&image)?;
        }
        Ok(())
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The pushed images of a pod, each once.
pub(crate) fn pushed(pod: &Pod) -> BTreeSet<&Digest> {
    let images = pod.services().values().map(|service| &service.image);
    images
        .filter_map(|image| match image {
            ImageRef::Pushed { id } => Some(id),
            ImageRef::Encrypted { .. } | ImageRef::Registry { .. } => None,
        })
        .collect()
}

impl Shared {
    /// Writes down that `wallet` may use an image: it has shown all of it, or who acts for it has.
    pub(crate) fn show(&self, wallet: Address, image: &Digest) -> io::Result<()> {
        let snapshot = self.seen.borrow().clone();
        let open = snapshot.leases.values();
        let open = open.filter(|lease| matches!(lease.state, State::Pending | State::Active));
        let payers: BTreeSet<String> = open.map(|lease| hex::encode(lease.payer)).collect();
        self.shown.note(wallet, image, |wallet| payers.contains(wallet))
    }

    /// Whether `payer` may use the images of `pod`; if not, it is told what it would be of an image that is not here.
    pub(crate) fn may_use(&self, payer: Address, pod: &Pod) -> Result<(), EngineError> {
        match pushed(pod).into_iter().find(|image| !self.shown.has(payer, image)) {
            Some(image) => Err(EngineError::NotPushed(image.to_string())),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn image(of: char) -> Digest {
        format!("sha256:{}", of.to_string().repeat(64)).parse().unwrap()
    }

    fn nobody(_wallet: &str) -> bool {
        false
    }

    #[test]
    fn an_image_is_for_who_has_shown_it_until_it_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (Address::repeat_byte(1), Address::repeat_byte(2));
        let shown = Shown::open(folder.path()).unwrap();
        shown.note(one, &image('a'), nobody).unwrap();
        shown.note(one, &image('b'), nobody).unwrap();
        // As after a restart.
        let shown = Shown::open(folder.path()).unwrap();
        assert!(shown.has(one, &image('a')) && shown.has(one, &image('b')));
        assert!(!shown.has(two, &image('a')), "another wallet has it");
        shown.note(two, &image('a'), nobody).unwrap();
        assert!(shown.has(two, &image('a')));
        assert_eq!(shown.images().unwrap(), BTreeSet::from([image('a'), image('b')]));
        shown.forget(&image('a')).unwrap();
        assert!(!shown.has(one, &image('a')) && !shown.has(two, &image('a')));
        assert!(shown.has(one, &image('b')));
    }

    #[test]
    fn who_pays_for_a_lease_makes_room_last() {
        let folder = tempfile::tempdir().unwrap();
        let (payer, other) = (Address::repeat_byte(1), Address::repeat_byte(2));
        let shown = Shown { most: (2, 3), ..Shown::open(folder.path()).unwrap() };
        let pays = |wallet: &str| wallet == hex::encode(payer);
        let mut age = 100;
        let mut note = |wallet, of| {
            shown.note(wallet, &image(of), pays).unwrap();
            let file = std::fs::File::options().append(true).open(shown.path(wallet, &image(of)));
            age -= 1;
            file.unwrap().set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
        };
        let there = |wallet, of| shown.path(wallet, &image(of)).exists();
        note(payer, 'a');
        note(other, 'b');
        note(other, 'c');
        note(other, 'd');
        assert!(!there(other, 'b'), "a wallet has more than it may");
        assert!(there(payer, 'a') && there(other, 'c') && there(other, 'd'));
        note(Address::repeat_byte(3), 'e');
        assert!(there(payer, 'a'), "who pays is the first to make room");
        assert!(!there(other, 'c') && there(other, 'd'));
        assert!(there(Address::repeat_byte(3), 'e'));
    }
}
