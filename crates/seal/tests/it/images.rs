//! Images made by hand, encrypted, changed and decrypted.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read},
    path::Path,
};

use seal::{
    AppKey,
    image::{self, Blobs, Digest, ImageError, Layout},
};
use tempfile::TempDir;

/// A plain image of two layers in a layout, under the name `app`.
pub(crate) struct Plain {
    pub(crate) folder: TempDir,
    pub(crate) layout: Layout,
    pub(crate) digest: Digest,
}

/// A tar of one file.
pub(crate) fn layer(name: &str, contents: &[u8]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    append(&mut tar, name, contents);
    tar.into_inner().unwrap()
}

fn append(tar: &mut tar::Builder<Vec<u8>>, name: &str, contents: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(contents.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, contents).unwrap();
}

fn config(layers: &[Vec<u8>]) -> Vec<u8> {
    let diff_ids: Vec<_> = layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
    let history: Vec<_> =
        layers.iter().map(|_| serde_json::json!({ "created_by": "hand" })).collect();
    serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": { "Cmd": ["/hello"] },
        "rootfs": { "type": "layers", "diff_ids": diff_ids }, "history": history,
    })
    .to_string()
    .into_bytes()
}

/// What `docker save` writes.
fn saved(layers: &[Vec<u8>]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let names: Vec<_> = (0..layers.len()).map(|index| format!("{index}/layer.tar")).collect();
    append(&mut tar, "config.json", &config(layers));
    for (name, layer) in names.iter().zip(layers) {
        append(&mut tar, name, layer);
    }
    let manifest =
        serde_json::json!([{ "Config": "config.json", "RepoTags": [], "Layers": names }]);
    append(&mut tar, "manifest.json", manifest.to_string().as_bytes());
    tar.into_inner().unwrap()
}

pub(crate) fn plain() -> Plain {
    plain_of(&[layer("hello", b"swordfish"), layer("data", &[7; 200_000])])
}

fn plain_of(layers: &[Vec<u8>]) -> Plain {
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout::create(folder.path().join("plain")).unwrap();
    let digest = image::import_docker_archive(saved(layers).as_slice(), &layout, "app").unwrap();
    Plain { folder, layout, digest }
}

/// The plain image, encrypted for `key` in `encrypted` of its folder.
fn encrypted(plain: &Plain, key: &AppKey) -> Layout {
    let into = Layout::create(plain.folder.path().join("encrypted")).unwrap();
    let sealed = image::encrypt(&plain.layout, Some("app"), &key.public(), &into, "app").unwrap();
    assert_eq!(sealed.plain, plain.digest);
    assert_eq!(sealed.manifest, Digest::of(&into.manifest(None).unwrap()));
    into
}

fn open(layout: &Layout, key: &AppKey, wanted: &Digest) -> Result<(), ImageError> {
    image::open(&layout.manifest(None).unwrap(), layout, key, wanted).map(|_| ())
}

/// The layers of an image that was opened, in plain.
fn layers_of(opened: &image::Opened<'_, Layout>) -> io::Result<Vec<Vec<u8>>> {
    let read = |layer: io::Result<_>| {
        let mut bytes = Vec::new();
        Read::read_to_end(&mut layer?, &mut bytes).map(|_| bytes)
    };
    opened.layers().map(read).collect()
}

fn contents(folder: &Path) -> Vec<Vec<u8>> {
    let blobs = fs::read_dir(folder.join("blobs/sha256")).unwrap();
    blobs.map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect()
}

#[test]
fn an_image_is_encrypted_once_and_comes_back_the_same() {
    let (plain, key) = (plain(), AppKey::generate());
    let sealed = encrypted(&plain, &key);
    let text = contents(sealed.path());
    assert!(!text.iter().any(|blob| blob.windows(9).any(|window| window == b"swordfish")));
    assert!(image::is_encrypted(&sealed.manifest(None).unwrap()));
    assert!(!image::is_encrypted(&plain.layout.manifest(None).unwrap()));

    let back = Layout::create(plain.folder.path().join("back")).unwrap();
    assert_eq!(image::decrypt(&sealed, None, &key, &back, "app").unwrap(), plain.digest);
    assert_eq!(back.manifest(None).unwrap(), plain.layout.manifest(None).unwrap());
    let mut ours = [contents(back.path()), contents(plain.layout.path())];
    ours.iter_mut().for_each(|blobs| blobs.sort());
    assert!(ours[0] == ours[1]);
}

#[test]
fn a_provider_reads_it_without_writing_it() {
    let layers = [layer("hello", b"swordfish"), layer("empty", b""), layer("empty", b"")];
    let (plain, key) = (plain_of(&layers), AppKey::generate());
    let sealed = encrypted(&plain, &key);
    let manifest = sealed.manifest(None).unwrap();
    let opened = image::open(&manifest, &sealed, &key, &plain.digest).unwrap();
    assert_eq!(opened.digest(), plain.digest);
    assert_eq!(opened.image_id(), Digest::of(&config(&layers)));
    assert_eq!(opened.size(), layers.iter().map(|layer| layer.len() as u64).sum::<u64>());

    assert_eq!(opened.config(), config(&layers));
    assert_eq!(opened.labelled(&BTreeMap::new()).unwrap(), opened.config());
    assert_eq!(layers_of(&opened).unwrap(), layers);
}

/// With labels it is an image of its own, which nobody can name who does not know them.
#[test]
fn a_label_makes_it_another_image() {
    let (plain, key) = (plain(), AppKey::generate());
    let sealed = encrypted(&plain, &key);
    let manifest = sealed.manifest(None).unwrap();
    assert_eq!(image::identify(&manifest, &sealed, &key).unwrap(), plain.digest);
    let opened = image::open(&manifest, &sealed, &key, &plain.digest).unwrap();
    let mut ids = Vec::new();
    for start in ["one", "two"] {
        let labels = BTreeMap::from([("start".to_owned(), start.to_owned())]);
        let labelled = opened.labelled(&labels).unwrap();
        let mut config: serde_json::Value = serde_json::from_slice(&labelled).unwrap();
        let labels = config["config"].as_object_mut().unwrap().remove("Labels").unwrap();
        assert_eq!(labels, serde_json::json!({ "start": start }));
        let before: serde_json::Value = serde_json::from_slice(opened.config()).unwrap();
        assert_eq!(config, before);
        ids.push(Digest::of(&labelled));
    }
    assert!(ids[0] != ids[1] && !ids.contains(&opened.image_id()));
}

#[test]
fn without_the_key_it_is_nothing() {
    let (plain, key) = (plain(), AppKey::generate());
    let sealed = encrypted(&plain, &key);
    assert!(open(&sealed, &key, &plain.digest).is_ok());
    let err = open(&sealed, &AppKey::generate(), &plain.digest).unwrap_err();
    assert!(matches!(err, ImageError::WrongKey(0)), "{err}");
    let wanted = Digest([0; 32]);
    let err = open(&sealed, &key, &wanted).unwrap_err();
    assert!(matches!(err, ImageError::OtherImage { got, .. } if got == plain.digest), "{err}");
}

#[test]
fn no_blob_may_change() {
    let (plain, key) = (plain(), AppKey::generate());
    let sealed = encrypted(&plain, &key);
    for (digest, size) in sealed.parts(None).unwrap() {
        let path = sealed.path().join("blobs/sha256").join(digest.hex());
        let good = fs::read(&path).unwrap();
        assert_eq!(good.len() as u64, size);
        let mut flipped = good.clone();
        flipped[good.len() / 2] ^= 1;
        for bad in [&flipped[..], &good[..good.len() - 1], &[good.as_slice(), b"."].concat(), b""] {
            fs::write(&path, bad).unwrap();
            let err = open(&sealed, &key, &plain.digest).unwrap_err();
            let noticed = matches!(err, ImageError::Tampered { .. } | ImageError::Config { .. });
            assert!(noticed, "{err}");
        }
        fs::remove_file(&path).unwrap();
        let err = open(&sealed, &key, &plain.digest).unwrap_err();
        assert!(matches!(err, ImageError::Blob(missing, _) if missing == digest), "{err}");
        fs::write(&path, good).unwrap();
    }
    assert!(open(&sealed, &key, &plain.digest).is_ok());
}

#[test]
fn a_layer_that_changes_later_has_no_end() {
    let (plain, key) = (plain(), AppKey::generate());
    let sealed = encrypted(&plain, &key);
    let manifest = sealed.manifest(None).unwrap();
    let opened = image::open(&manifest, &sealed, &key, &plain.digest).unwrap();
    let (last, _) = sealed.parts(None).unwrap().pop().unwrap();
    let path = sealed.path().join("blobs/sha256").join(last.hex());
    let mut bytes = fs::read(&path).unwrap();
    bytes[100] ^= 1;
    fs::write(&path, bytes).unwrap();

    let err = layers_of(&opened).unwrap_err();
    assert!(err.get_ref().is_some_and(|err| err.is::<image::Tampered>()), "{err}");
    let back = Layout::create(plain.folder.path().join("back")).unwrap();
    assert!(image::decrypt(&sealed, None, &key, &back, "app").is_err());
    assert!(back.manifest(None).is_err());
}

/// A registry could exchange layers among images of one app: the keys would open them.
#[test]
fn layers_of_another_image_are_another_image() {
    let key = AppKey::generate();
    let (old, new) = (plain_of(&[layer("app", b"old")]), plain_of(&[layer("app", b"new")]));
    let (old_sealed, new_sealed) = (encrypted(&old, &key), encrypted(&new, &key));
    let manifest = |layout: &Layout| -> serde_json::Value {
        serde_json::from_slice(&layout.manifest(None).unwrap()).unwrap()
    };
    let mut mixed = manifest(&new_sealed);
    mixed["layers"] = manifest(&old_sealed)["layers"].clone();
    for (digest, _) in old_sealed.parts(None).unwrap() {
        let mut blob = Vec::new();
        old_sealed.open(&digest).unwrap().read_to_end(&mut blob).unwrap();
        new_sealed.put(&blob).unwrap();
    }
    let mixed = mixed.to_string();
    let err = image::open(mixed.as_bytes(), &new_sealed, &key, &new.digest).unwrap_err();
    assert!(matches!(err, ImageError::OtherImage { .. }), "{err}");
}

#[test]
fn annotations_of_encryption_are_read_with_suspicion() {
    let (plain, key) = (plain(), AppKey::generate());
    let sealed = encrypted(&plain, &key);
    let manifest: serde_json::Value =
        serde_json::from_slice(&sealed.manifest(None).unwrap()).unwrap();
    let (keys, options) =
        ("org.opencontainers.image.enc.keys.jwe", "org.opencontainers.image.enc.pubopts");
    let changed = |name: &str, value: serde_json::Value| {
        let mut manifest = manifest.clone();
        manifest["layers"][1]["annotations"][name] = value;
        let manifest = manifest.to_string();
        image::open(manifest.as_bytes(), &sealed, &key, &plain.digest).map(|_| ()).unwrap_err()
    };
    let other = &manifest["layers"][0]["annotations"];
    for name in [keys, options] {
        let err = changed(name, other[name].clone());
        assert!(matches!(err, ImageError::Tampered { layer: 1, .. }), "{err}");
    }
    assert!(matches!(changed(keys, "e30=".into()), ImageError::WrongKey(1)));
    assert!(matches!(changed(keys, "*".into()), ImageError::Layer { layer: 1, .. }));
    assert!(matches!(changed(options, "e30=".into()), ImageError::Layer { layer: 1, .. }));
}

#[test]
fn only_plain_images_are_encrypted_and_only_encrypted_ones_opened() {
    let (plain, key) = (plain(), AppKey::generate());
    let sealed = encrypted(&plain, &key);
    let again = Layout::create(plain.folder.path().join("again")).unwrap();
    let err = image::encrypt(&sealed, None, &key.public(), &again, "app").unwrap_err();
    assert!(matches!(err, ImageError::Encrypted(0)), "{err}");
    let err = open(&plain.layout, &key, &plain.digest).unwrap_err();
    assert!(matches!(err, ImageError::NotEncrypted), "{err}");
}

#[test]
fn a_layout_names_its_images() {
    let plain = plain();
    let err = plain.layout.manifest(Some("other")).unwrap_err().to_string();
    assert_eq!(err, r#"the layout holds no image named "other", only app"#);
    let archive = saved(&[layer("b", b"b")]);
    let second = image::import_docker_archive(archive.as_slice(), &plain.layout, "b").unwrap();
    assert!(matches!(plain.layout.manifest(None), Err(ImageError::NotOne(2))));
    assert_eq!(Digest::of(&plain.layout.manifest(Some("b")).unwrap()), second);
    assert_eq!(Digest::of(&plain.layout.manifest(Some("app")).unwrap()), plain.digest);
}

#[test]
fn what_is_no_docker_archive_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout::create(folder.path()).unwrap();
    let archive = |files: &[(&str, &str)]| {
        let mut tar = tar::Builder::new(Vec::new());
        files.iter().for_each(|(name, contents)| append(&mut tar, name, contents.as_bytes()));
        let archive = tar.into_inner().unwrap();
        image::import_docker_archive(archive.as_slice(), &layout, "app").unwrap_err().to_string()
    };
    let no_layers = ("manifest.json", r#"[{"Config":"c","Layers":[]}]"#);
    let one_layer = ("manifest.json", r#"[{"Config":"c","Layers":["l"]}]"#);
    for (files, part) in [
        (&[][..], "no manifest.json"),
        (&[("manifest.json", "[]")], "not of one image"),
        (&[no_layers], "c is missing"),
        (&[("c", "{}"), one_layer], "l is missing"),
    ] {
        let err = archive(files);
        assert!(err.contains(part), "{err}");
    }
}
