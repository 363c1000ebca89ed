//! What encrypting and decrypting an image takes, beside skopeo: `cargo bench -p seal`. It prints figures and judges nothing.
//!
//! An image with one layer of random bytes, which does not compress, is encrypted and decrypted in turn by both, from one OCI
//! layout on disk into another. `provider` is what a provider does, which writes no plain copy: it
//! checks and decrypts every byte and drops it. SHA-256 of the same bytes says what the machine can do: each way reads and
//! hashes all of them at least once. The rounds alternate; what is printed is the median.

#![allow(clippy::unwrap_used, reason = "who runs this is told what failed by the panic")]

use std::{
    fs,
    io::{self, Read},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use ring::rand::{SecureRandom as _, SystemRandom};
use seal::{
    AppKey,
    image::{self, Digest, Layout},
};

const MIB: usize = 256;
const ROUNDS: usize = 5;

fn main() {
    if Command::new("skopeo").arg("--version").output().is_err() {
        eprintln!(
            "SKIPPED: there is no skopeo here to compare with; Debian's package skopeo has it."
        );
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (plain, layer) = plain(folder.path());
    let key = AppKey::generate();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let public = format!("jwe:{}", file("public.pem", &key.public().to_pem()));
    let private = file("private.pem", &key.to_pem());

    let mut times: [Vec<Duration>; 6] = Default::default();
    for _ in 0..ROUNDS {
        let round = tempfile::tempdir_in(folder.path()).unwrap();
        let into = |name: &str| Layout::create(round.path().join(name)).unwrap();
        let (ours, theirs) = (into("ours"), into("theirs"));
        let sealed = timed(&mut times[0], || {
            image::encrypt(&plain, Some("app"), &key.public(), &ours, "app").unwrap()
        });
        timed(&mut times[1], || copy(&["--encryption-key", &public], &plain, &theirs));
        let (back, back_too) = (into("back"), into("back-too"));
        let digest = timed(&mut times[2], || {
            image::decrypt(&ours, Some("app"), &key, &back, "app").unwrap()
        });
        assert_eq!(digest, sealed.plain);
        timed(&mut times[3], || copy(&["--decryption-key", &private], &ours, &back_too));
        let manifest = ours.manifest(Some("app")).unwrap();
        let read: u64 = timed(&mut times[4], || {
            let opened = image::open(&manifest, &ours, &key, &digest).unwrap();
            opened
                .layers()
                .map(|layer| io::copy(&mut layer.unwrap(), &mut io::sink()).unwrap())
                .sum()
        });
        assert_eq!(read, (MIB << 20) as u64);
        timed(&mut times[5], || {
            let mut bytes = Vec::new();
            fs::File::open(plain.path().join("blobs/sha256").join(layer.hex()))
                .unwrap()
                .read_to_end(&mut bytes)
                .unwrap();
            Digest::of(&bytes)
        });
    }
    let names = [
        "encrypt, ours",
        "encrypt, skopeo",
        "decrypt, ours",
        "decrypt, skopeo",
        "check and decrypt, as a provider does",
        "SHA-256 of the same bytes",
    ];
    println!("{MIB} MiB, median of {ROUNDS}\n");
    for (name, mut times) in names.into_iter().zip(times) {
        times.sort();
        let median = times[times.len() / 2].as_secs_f64();
        println!("{name:40} {:>7.0} ms {:>6.0} MiB/s", median * 1e3, MIB as f64 / median);
    }
}

/// An image of one layer, and that.
fn plain(folder: &Path) -> (Layout, Digest) {
    let mut bytes = vec![0; MIB << 20];
    SystemRandom::new().fill(&mut bytes).unwrap();
    let layout = Layout::create(folder.join("plain")).unwrap();
    let layer = layout.put(&bytes).unwrap();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": [layer.to_string()] },
    });
    let config = config.to_string();
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": layout.put(config.as_bytes()).unwrap().to_string(),
            "size": config.len(),
        },
        "layers": [{
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": layer.to_string(),
            "size": bytes.len(),
        }],
    });
    let manifest = manifest.to_string();
    let digest = layout.put(manifest.as_bytes()).unwrap();
    let index = serde_json::json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest.to_string(),
            "size": manifest.len(),
            "annotations": { "org.opencontainers.image.ref.name": "app" },
        }],
    });
    fs::write(layout.path().join("index.json"), index.to_string()).unwrap();
    (layout, layer)
}

fn timed<T>(times: &mut Vec<Duration>, of: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let done = of();
    times.push(began.elapsed());
    done
}

fn copy(options: &[&str], from: &Layout, to: &Layout) {
    let oci = |layout: &Layout| format!("oci:{}:app", layout.path().display());
    let mut command = Command::new("skopeo");
    command.args(["--insecure-policy", "copy", "--quiet"]).args(options);
    let output = command.args([oci(from), oci(to)]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
