//! docker-archives: what `docker save` writes and `docker load` reads.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read, Write},
};

use serde::Deserialize;

use super::{
    Blobs, Digest, ImageError, Layout, MAX_CONFIG, MAX_MANIFEST, Opened, failed,
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

/// Writes an image that was opened.
pub(super) fn write<B: Blobs>(
    image: &Opened<'_, B>,
    tags: &[&str],
    labels: &BTreeMap<String, String>,
    to: impl Write,
) -> Result<Digest, ImageError> {
    let mut tar = tar::Builder::new(to);
    let labelled = image.labelled(labels)?;
    let id = Digest::of(&labelled);
    let config = format!("{}.json", id.hex());
    append(&mut tar, &config, labelled.len() as u64, labelled.as_slice())?;
    let (mut names, mut written) = (Vec::new(), BTreeSet::new());
    for (index, layer) in image.layers.iter().enumerate() {
        let name = format!("{}/layer.tar", layer.plain.hex());
        // A layer may come twice in an image (empty ones do).
        if written.insert(name.clone()) {
            let plain = layer.open(image.blobs).map_err(|err| failed(index, layer.stored, err))?;
            // It is read to its end, where it is checked.
            append(&mut tar, &name, layer.size, plain)
                .map_err(|err| failed(index, layer.stored, err))?;
        }
        names.push(name);
    }
    let manifest = serde_json::json!([{ "Config": config, "RepoTags": tags, "Layers": names }]);
    let manifest = manifest.to_string();
    append(&mut tar, "manifest.json", manifest.len() as u64, manifest.as_bytes())?;
    tar.into_inner()?.flush()?;
    Ok(id)
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

fn append(
    tar: &mut tar::Builder<impl Write>,
    name: &str,
    size: u64,
    from: impl Read,
) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    tar.append_data(&mut header, name, from)
}
