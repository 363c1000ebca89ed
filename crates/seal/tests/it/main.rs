//! Images and evidence as other programs make and read them.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

mod evidence;
mod images;
mod skopeo;
