//! The image of Harborhook, built from programs that are compiled already, without a registry or a daemon.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::announce;
use crate::cache::{build_once, fingerprint};
use crate::environment::Environment;
use crate::missing::missing;
use crate::root::MMDEBSTRAP;

/// Repository of the image where no registry is; the part before the tag.
pub const REPOSITORY: &str = "localhost/harborhook";
/// The programs in the image.
pub const PROGRAMS: [&str; 3] = ["operator", "dispatcher", "harborctl"];

/// The image is built by this file.
const DOCKERFILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../Dockerfile");
/// Debian release of the base, and what of it the programs need.
const BASE_SUITE: &str = "bookworm";
const BASE_PACKAGES: &str = "base-files,ca-certificates,libc6,libgcc-s1,netbase,tzdata";
/// What the package of the certificates would do itself if anything in the base could run.
const CERTIFICATES_HOOK: &str = r#"mkdir -p "$1/etc/ssl/certs"
cat "$1"/usr/share/ca-certificates/mozilla/*.crt >"$1/etc/ssl/certs/ca-certificates.crt""#;
/// What images are built with.
const TOOLS: &[(&str, &str)] =
    &[("buildah", "apt-get install buildah"), MMDEBSTRAP, ("strip", "apt-get install binutils")];

/// Builds the image `tag`, such as `localhost/harborhook:1`, of the programs in a folder, without their symbols, and
/// writes it as a `docker-archive` to `archive`. A program that is not there is an error.
///
/// Blocks, for seconds; the first time on a machine for the base too.
pub fn build(environment: &Environment, binaries: &Path, tag: &str, archive: &Path) -> Result<()> {
    if let Some(missing) = missing(TOOLS) {
        bail!("no image can be built: {missing}");
    }
    let base = base(environment)?;
    let context = tempfile::Builder::new().prefix("harborhook-image-").tempdir()?;
    fs::copy(DOCKERFILE, context.path().join("Dockerfile"))?;
    fs::create_dir(context.path().join("programs"))?;
    for program in PROGRAMS {
        let source = binaries.join(program);
        if !source.is_file() {
            bail!("there is no {}; build it: cargo build --bin {program}", source.display());
        }
        let mut strip = Command::new("strip");
        strip.arg("-o").arg(context.path().join("programs").join(program)).arg(source);
        run(strip, "strip")?;
    }
    let arguments = [format!("BASE=docker-archive:{}", base.display()), "PROGRAMS=programs".to_owned()];
    build_archive(context.path(), &arguments, tag, archive)
}

/// Builds the Dockerfile of a folder and writes the image to a new file. Nothing else is left behind.
pub(crate) fn build_archive(context: &Path, arguments: &[String], tag: &str, archive: &Path) -> Result<()> {
    let storage = tempfile::Builder::new().prefix("harborhook-storage-").tempdir()?;
    let buildah = || {
        let mut command = Command::new("buildah");
        command
            .arg("--root")
            .arg(storage.path().join("root"))
            .arg("--runroot")
            .arg(storage.path().join("run"))
            .args(["--storage-driver", "overlay"])
            .env("BUILDAH_ISOLATION", "chroot")
            .env("TMPDIR", storage.path());
        command
    };
    let mut build = buildah();
    build.args(["bud", "--quiet", "--tag", tag]);
    for argument in arguments {
        build.args(["--build-arg", argument]);
    }
    build.arg(context);
    run(build, "buildah bud")?;
    if archive.exists() {
        fs::remove_file(archive).with_context(|| format!("cannot replace {}", archive.display()))?;
    }
    let mut push = buildah();
    push.args(["push", "--quiet", tag]).arg(format!("docker-archive:{}:{tag}", archive.display()));
    run(push, "buildah push")
}

/// The base as an archive.
fn base(environment: &Environment) -> Result<PathBuf> {
    let name = format!("base-{BASE_SUITE}-{}", fingerprint([BASE_SUITE, BASE_PACKAGES, CERTIFICATES_HOOK]));
    let folder = environment.cache_folder()?.join(name);
    build_once(&folder, |partial| {
        announce(&format!("making {} once: {BASE_PACKAGES} from {BASE_SUITE}", folder.display()));
        fs::create_dir(partial)?;
        let mut mmdebstrap = Command::new("mmdebstrap");
        mmdebstrap.args(["--variant=extract", &format!("--include={BASE_PACKAGES}")]);
        mmdebstrap.arg(format!("--extract-hook={CERTIFICATES_HOOK}")).arg(BASE_SUITE).arg(partial.join("base.tar"));
        run(mmdebstrap, "mmdebstrap")?;
        fs::write(partial.join("Dockerfile"), "FROM scratch\nADD base.tar /\n")?;
        build_archive(partial, &[], "localhost/base:1", &partial.join("image.tar"))?;
        fs::remove_file(partial.join("base.tar")).context("cannot remove what the image was made of")
    })?;
    Ok(folder.join("image.tar"))
}

fn run(mut command: Command, name: &str) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{name} does not start"))?;
    if !output.status.success() {
        bail!("{name} failed ({})\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
