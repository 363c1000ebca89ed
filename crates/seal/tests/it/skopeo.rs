//! Mutual: what we encrypt skopeo decrypts, and the other way. Needs skopeo (Debian's package), and says so without it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use seal::{
    AppKey,
    image::{self, Digest, Layout},
};

use crate::images::{self, Plain};

/// skopeo, if it is here.
fn skopeo() -> Option<Command> {
    let found = Command::new("skopeo").arg("--version").output().is_ok();
    if !found {
        eprintln!("SKIPPED: skopeo is not installed, so nothing is compared with it");
    }
    found.then(|| Command::new("skopeo"))
}

/// `skopeo copy` with these options.
fn copy(options: &[&str], from: &str, to: &str) {
    let mut command = skopeo().unwrap();
    command.args(["--insecure-policy", "copy", "--quiet"]).args(options).args([from, to]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn oci(layout: &Layout) -> String {
    format!("oci:{}:app", layout.path().display())
}

fn file(folder: &Path, name: &str, contents: &str) -> String {
    let path: PathBuf = folder.join(name);
    fs::write(&path, contents).unwrap();
    path.to_str().unwrap().to_owned()
}

fn layout(plain: &Plain, name: &str) -> Layout {
    Layout::create(plain.folder.path().join(name)).unwrap()
}

/// The same image as skopeo stores it: gzipped, and with annotations that Go escapes in its own way.
fn gzipped(plain: &Plain) -> (Layout, Digest) {
    let gzipped = layout(plain, "gzipped");
    copy(&["--dest-compress"], &oci(&plain.layout), &oci(&gzipped));
    let mut manifest: serde_json::Value =
        serde_json::from_slice(&gzipped.manifest(None).unwrap()).unwrap();
    assert_eq!(manifest["layers"][0]["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
    manifest["annotations"] = serde_json::json!({ "b": "1 < 2 & 3 > 2", "a": "\u{2028}é\"" });
    manifest["layers"][0]["annotations"] = serde_json::json!({ "c": "&" });
    let digest = gzipped.put(manifest.to_string().as_bytes()).unwrap();
    let index = gzipped.path().join("index.json");
    let mut listed: serde_json::Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    listed["manifests"][0]["digest"] = digest.to_string().into();
    listed["manifests"][0]["size"] = manifest.to_string().len().into();
    fs::write(index, listed.to_string()).unwrap();
    // What skopeo makes of it, in the order of Go's fields, is what the image is known by.
    let canonical = layout(plain, "canonical");
    let key = AppKey::generate();
    let sealed = image::encrypt(&gzipped, None, &key.public(), &canonical, "sealed").unwrap();
    let digest = image::decrypt(&canonical, Some("sealed"), &key, &canonical, "app").unwrap();
    assert_eq!(digest, sealed.plain);
    (canonical, digest)
}

#[test]
fn skopeo_decrypts_what_we_encrypt() {
    if skopeo().is_none() {
        return;
    }
    let plain = images::plain();
    let (zipped, zipped_digest) = gzipped(&plain);
    for (from, digest) in [(&plain.layout, plain.digest), (&zipped, zipped_digest)] {
        let key = AppKey::generate();
        let (ours, theirs) = (layout(&plain, "ours"), layout(&plain, "theirs"));
        let sealed = image::encrypt(from, Some("app"), &key.public(), &ours, "app").unwrap();
        assert_eq!(sealed.plain, digest);
        let private = file(plain.folder.path(), "private.pem", &key.to_pem());
        copy(&["--decryption-key", &private], &oci(&ours), &oci(&theirs));
        let decrypted = theirs.manifest(Some("app")).unwrap();
        assert_eq!(Digest::of(&decrypted), digest, "{}", String::from_utf8_lossy(&decrypted));
        for (blob, size) in theirs.parts(Some("app")).unwrap() {
            let path = |layout: &Layout| layout.path().join("blobs/sha256").join(blob.hex());
            let bytes = fs::read(path(&theirs)).unwrap();
            assert_eq!(bytes.len() as u64, size);
            assert!(bytes == fs::read(path(from)).unwrap());
        }
    }
}

#[test]
fn we_decrypt_what_skopeo_encrypts() {
    if skopeo().is_none() {
        return;
    }
    let plain = images::plain();
    let (from, digest) = gzipped(&plain);
    let (key, second) = (AppKey::generate(), AppKey::generate());
    let public = |name: &str, key: &AppKey| {
        format!("jwe:{}", file(plain.folder.path(), name, &key.public().to_pem()))
    };
    let (one, two) = (public("one.pem", &key), public("two.pem", &second));
    let theirs = layout(&plain, "theirs");

    // For two recipients, whom skopeo writes into one JWE.
    copy(&["--encryption-key", &one, "--encryption-key", &two], &oci(&from), &oci(&theirs));
    let manifest = theirs.manifest(Some("app")).unwrap();
    assert!(image::is_encrypted(&manifest));
    for key in [&key, &second] {
        let opened = image::open(&manifest, &theirs, key, &digest).unwrap();
        assert_eq!(opened.manifest(), from.manifest(Some("app")).unwrap());
    }

    copy(&["--encryption-key", &one], &oci(&from), &oci(&theirs));
    let manifest = theirs.manifest(Some("app")).unwrap();
    assert!(image::open(&manifest, &theirs, &second, &digest).is_err());
    let opened = image::open(&manifest, &theirs, &key, &digest).unwrap();
    assert_eq!(opened.manifest(), from.manifest(Some("app")).unwrap());
}

/// skopeo compresses what it encrypts, so the image is another then, and to both of us the same one.
#[test]
fn we_and_skopeo_decrypt_to_the_same_image() {
    if skopeo().is_none() {
        return;
    }
    let (plain, key) = (images::plain(), AppKey::generate());
    let public = file(plain.folder.path(), "public.pem", &key.public().to_pem());
    let private = file(plain.folder.path(), "private.pem", &key.to_pem());
    let [sealed, ours, theirs] = ["sealed", "ours", "theirs"].map(|name| layout(&plain, name));
    copy(&["--encryption-key", &format!("jwe:{public}")], &oci(&plain.layout), &oci(&sealed));
    copy(&["--decryption-key", &private], &oci(&sealed), &oci(&theirs));
    let digest = image::decrypt(&sealed, Some("app"), &key, &ours, "app").unwrap();
    assert_eq!(digest, Digest::of(&theirs.manifest(Some("app")).unwrap()));
    assert_eq!(ours.parts(Some("app")).unwrap(), theirs.parts(Some("app")).unwrap());
}

#[test]
fn skopeo_refuses_another_key() {
    if skopeo().is_none() {
        return;
    }
    let plain = images::plain();
    let sealed = layout(&plain, "sealed");
    let public = AppKey::generate().public();
    image::encrypt(&plain.layout, None, &public, &sealed, "app").unwrap();
    let other = file(plain.folder.path(), "other.pem", &AppKey::generate().to_pem());
    let output = skopeo()
        .unwrap()
        .args(["--insecure-policy", "copy", "--decryption-key", &other])
        .args([oci(&sealed), oci(&layout(&plain, "opened"))])
        .output()
        .unwrap();
    assert!(!output.status.success());
}
