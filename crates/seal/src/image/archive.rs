//! docker-archives: what `docker save` writes; and the configurations in them.

use std::{
    collections::BTreeMap,
    io::{self, Read},
};

use serde::Deserialize;

use super::{
    Digest, ImageError, Layout, MAX_CONFIG, MAX_MANIFEST,
    manifest::{Descriptor, Manifest},
    read_small,
};

/// The most files of an archive.
const MAX_ENTRIES: usize = 4_096;

/// `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    layers: Vec<String>,
}

/// Makes the image `name` of `into` out of a docker-archive (what `docker save` writes), and gives the digest of its
/// manifest. Layers stay as they are, which is uncompressed.
///
/// # Errors
/// When the archive is not of one image, or `into` cannot be written.
pub fn import_docker_archive(
    archive: impl Read,
    into: &Layout,
    name: &str,
) -> Result<Digest, ImageError> {
    let wrong = |why: &str| ImageError::Archive(why.to_owned());
    let mut blobs: BTreeMap<String, (Digest, u64)> = BTreeMap::new();
    let mut links: BTreeMap<String, String> = BTreeMap::new();
    let mut saved = None;
    for (count, entry) in tar::Archive::new(archive).entries()?.enumerate() {
        let mut entry = entry?;
        if count >= MAX_ENTRIES {
            return Err(wrong("it has too many files"));
        }
        let path = entry.path()?.to_str().ok_or_else(|| wrong("a name is not UTF-8"))?.to_owned();
        let kind = entry.header().entry_type();
        if kind.is_symlink() {
            // Docker links a layer that comes twice, relative to the link's own folder.
            let target = entry.link_name()?.and_then(|target| target.to_str().map(str::to_owned));
            let target = target.ok_or_else(|| wrong("a link leads nowhere"))?;
            links.insert(path, target.trim_start_matches("../").to_owned());
        } else if path == "manifest.json" {
            saved = Some(read_small(&mut entry, MAX_MANIFEST, "manifest.json")?);
        } else if kind.is_file() {
            let size = entry.size();
            let digest = into.put_from(|file| io::copy(&mut entry, file).map(|_| ()))?;
            blobs.insert(path, (digest, size));
        }
    }
    let saved = saved.ok_or_else(|| wrong("it has no manifest.json"))?;
    let [saved] = serde_json::from_slice::<[Saved; 1]>(&saved).map_err(|err| {
        ImageError::Archive(format!("its manifest.json is not of one image: {err}"))
    })?;
    let blob = |path: &String| {
        let (digest, size) = blobs
            .get(path)
            .or_else(|| blobs.get(links.get(path)?))
            .ok_or_else(|| ImageError::Archive(format!("{path} is missing")))?;
        Ok::<_, ImageError>((*digest, *size))
    };
    let (digest, size) = blob(&saved.config)?;
    if size > MAX_CONFIG {
        return Err(ImageError::TooLarge { what: "the configuration", size, most: MAX_CONFIG });
    }
    let config = Descriptor::config(digest, size);
    let layers = saved.layers.iter().map(|path| {
        let (digest, size) = blob(path)?;
        Ok(Descriptor::layer(digest, size))
    });
    let layers = layers.collect::<Result<Vec<_>, ImageError>>()?;
    let manifest = Manifest::new(config, layers).to_bytes();
    Manifest::parse(&manifest)?;
    into.put_manifest(&manifest, name)
}

/// A configuration with more labels; byte for byte what it was where there are none.
pub(super) fn labelled(
    config: &[u8],
    labels: &BTreeMap<String, String>,
) -> Result<Vec<u8>, ImageError> {
    if labels.is_empty() {
        return Ok(config.to_vec());
    }
    let wrong = |why: &str| ImageError::Archive(format!("its configuration {why}"));
    let mut parsed: serde_json::Value =
        serde_json::from_slice(config).map_err(|err| wrong(&format!("cannot be read: {err}")))?;
    let mut map = parsed.as_object_mut().ok_or_else(|| wrong("is no object"))?;
    for name in ["config", "Labels"] {
        let inner = map.entry(name).or_insert(serde_json::Value::Null);
        if inner.is_null() {
            *inner = serde_json::json!({});
        }
        let is_none = || wrong(&format!("has a {name:?} that is no object"));
        map = inner.as_object_mut().ok_or_else(is_none)?;
    }
    let labels = labels.iter().map(|(name, value)| (name.clone(), value.clone().into()));
    map.extend(labels);
    Ok(parsed.to_string().into_bytes())
}
