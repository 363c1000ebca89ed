//! `roadstead init`: a pod file to begin with.

use std::{io::Write as _, path::Path};

use anyhow::Context as _;

use crate::output;

const TEMPLATE: &str = include_str!("init/compose.yaml");

/// Writes the file; one that is there stays as it is.
pub(crate) fn run(file: &Path, json: bool) -> anyhow::Result<()> {
    let mut created = match std::fs::File::create_new(file) {
        Ok(created) => created,
        Err(err) if err.kind() == std::io::ErrorKind::AlreadyExists => {
            anyhow::bail!("{} is there already and is not overwritten", file.display());
        }
        Err(err) => {
            return Err(err).with_context(|| format!("{} cannot be written", file.display()));
        }
    };
    created
        .write_all(TEMPLATE.as_bytes())
        .with_context(|| format!("{} cannot be written", file.display()))?;
    output::show(json, &serde_json::json!({ "file": file }), || {
        let path = file.display();
        format!("{path} is written; change it, then look at it with `roadstead check {path}`")
    })
}

#[cfg(test)]
mod tests {
    use protocol::pod::Pod;

    use super::*;

    #[test]
    fn the_template_is_a_pod() {
        let parsed = Pod::from_compose(TEMPLATE, &()).unwrap();
        assert_eq!(parsed.images().len(), 1);
        assert!(parsed.wishes().max_price.is_some());
    }

    #[test]
    fn an_existing_file_stays() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("compose.yaml");
        run(&file, true).unwrap();
        std::fs::write(&file, "mine").unwrap();
        let err = run(&file, true).unwrap_err().to_string();
        assert!(err.contains("not overwritten"), "{err}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
    }
}
