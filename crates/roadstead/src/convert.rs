//! `roadstead convert`: other people's pod files as Compose files. `roadstead schema`: what `x-roadstead` may say.

use std::{
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use protocol::{
    convert::Converted,
    pod::{Fault, SCHEMA, limits},
};
use serde::Serialize;

use crate::output;

/// Converts `files`, of which `-` is standard input, and writes what comes out to `target`, or prints it.
pub(crate) fn run(files: &[PathBuf], target: Option<&Path>, json: bool) -> anyhow::Result<()> {
    let texts: Vec<String> = files.iter().map(|file| read(file)).collect::<anyhow::Result<_>>()?;
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let converted = protocol::convert::convert(&texts).context("it cannot be converted")?;
    if let Some(target) = target {
        write(target, &converted.compose)?;
    }
    if json {
        return output::show(true, &Shown::of(&converted), String::new);
    }
    // What is left out is no part of the file, which may go into a pipe.
    eprint!("{}", report(&converted));
    match target {
        Some(target) => {
            let target = target.display();
            Ok(output::print(&format!(
                "{target} is written; look at it with `roadstead check {target}`"
            ))?)
        }
        None => Ok(output::print(converted.compose.trim_end())?),
    }
}

/// Prints the schema.
pub(crate) fn schema() -> anyhow::Result<()> {
    Ok(output::print(SCHEMA.trim_end())?)
}

fn read(file: &Path) -> anyhow::Result<String> {
    let cannot = || format!("{} cannot be read", file.display());
    let most = limits::FILE as u64;
    let mut text = String::new();
    let read = match file.to_str() {
        Some("-") => std::io::stdin().lock().take(most + 1).read_to_string(&mut text),
        _ => {
            std::fs::File::open(file).with_context(cannot)?.take(most + 1).read_to_string(&mut text)
        }
    };
    let read = read.with_context(cannot)?;
    ensure!(read as u64 <= most, "{} is larger than {most} bytes", file.display());
    Ok(text)
}

/// Writes a file; one that is there stays as it is.
fn write(target: &Path, text: &str) -> anyhow::Result<()> {
    let mut created = std::fs::File::create_new(target).with_context(|| {
        format!("{} cannot be written; a file that is there is not overwritten", target.display())
    })?;
    created
        .write_all(text.as_bytes())
        .with_context(|| format!("{} cannot be written", target.display()))
}

/// What is to be known about a conversion, for people.
fn report(converted: &Converted) -> String {
    let faults =
        |title: &str, faults: &[Fault]| section(title, faults.iter().map(Fault::to_string));
    [
        faults("left out", &converted.left_out),
        section("to know", converted.notes.iter().cloned()),
        faults("still to be written in the Compose file", &converted.open),
    ]
    .concat()
}

fn section(title: &str, lines: impl Iterator<Item = String>) -> String {
    let lines: String = lines.map(|line| format!("  {}\n", output::tame(&line))).collect();
    if lines.is_empty() { lines } else { format!("{title}:\n{lines}") }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    compose: &'a str,
    left_out: Vec<Line<'a>>,
    notes: &'a [String],
    open: Vec<Line<'a>>,
}

#[derive(Debug, Serialize)]
struct Line<'a> {
    path: &'a str,
    what: &'a str,
}

impl<'a> Shown<'a> {
    fn of(converted: &'a Converted) -> Self {
        let line = |fault: &'a Fault| Line { path: &fault.path, what: &fault.what };
        Self {
            compose: &converted.compose,
            left_out: converted.left_out.iter().map(line).collect(),
            notes: &converted.notes,
            open: converted.open.iter().map(line).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn what_is_left_out_is_told_beside_the_file() {
        let pod = "kind: Pod\nmetadata: { name: web }\nspec: { hostNetwork: true, containers: [{ name: web, image: A }] }";
        let converted = protocol::convert::convert(&[pod]).unwrap();
        expect![[r#"
            left out:
              Pod/web.spec.hostNetwork: a container has its own
            still to be written in the Compose file:
              services.web.image: image names are in lower case: "a"
        "#]]
        .assert_eq(&report(&converted));
        let shown = serde_json::to_value(Shown::of(&converted)).unwrap();
        assert_eq!(shown["leftOut"][0]["path"], "Pod/web.spec.hostNetwork");
    }

    #[test]
    fn files_are_written_once() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("pod.yaml"), folder.path().join("compose.yaml"));
        std::fs::write(
            &from,
            "kind: Pod\nmetadata: { name: web }\nspec: { containers: [{ name: web, image: a }] }",
        )
        .unwrap();
        run(std::slice::from_ref(&from), Some(&to), false).unwrap();
        let written = std::fs::read_to_string(&to).unwrap();
        assert!(written.starts_with("services:\n  web:\n    image: a\n"), "{written}");
        let err = format!("{:#}", run(&[from], Some(&to), false).unwrap_err());
        assert!(err.contains("not overwritten"), "{err}");
        let err = format!("{:#}", run(&[to], None, false).unwrap_err());
        assert!(err.contains("neither a Kubernetes manifest"), "{err}");
    }
}
