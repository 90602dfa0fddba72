//! Images in the node.

use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use tokio::process::Command;

use super::Cluster;
use crate::cache::fingerprint;
use crate::environment::{Environment, IMAGE, KUBECONFIG};
use crate::image;

impl Cluster {
    /// Gives the node an image (a `docker-archive`); pods name it as the archive does, with an `imagePullPolicy` that is
    /// not `Always`.
    pub async fn load_image(&self, archive: &Path) -> Result<()> {
        // The archive is a file of this side; an open one has no side.
        let archive = File::open(archive).with_context(|| format!("cannot read {}", archive.display()))?;
        self.images(&["import", "-"], archive.into()).await.context("the image cannot be loaded")?;
        Ok(())
    }

    /// Name of Harborhook's image for pods of this cluster: the one that the environment names, else one of the programs
    /// in this folder, which is built and loaded unless the node has it already.
    pub async fn harborhook_image(&self, binaries: &Path) -> Result<String> {
        let environment = Environment::read()?;
        if let Some(named) = environment.image {
            return Ok(named);
        }
        // Callers of one process wait for each other; the second finds the image.
        let _alone = self.loading.lock().await;
        let binaries = binaries.to_owned();
        let fingerprint = {
            let binaries = binaries.clone();
            tokio::task::spawn_blocking(move || fingerprint_of(&binaries)).await??
        };
        let name = format!("{}:{fingerprint}", image::REPOSITORY);
        if !self.images(&["list", "--quiet", &format!("name=={name}")], Stdio::null()).await?.is_empty() {
            return Ok(name);
        }
        let folder = tempfile::tempdir()?;
        let archive = folder.path().join("image.tar");
        let (written, tag) = (archive.clone(), name.clone());
        tokio::task::spawn_blocking(move || image::build(&environment, &binaries, &tag, &written)).await??;
        self.load_image(&archive).await?;
        Ok(name)
    }

    /// `ctr images` beside the node's programs.
    async fn images(&self, arguments: &[&str], input: Stdio) -> Result<Vec<u8>> {
        let Some(reach) = &self.reach else {
            bail!("images cannot be loaded into the cluster that {KUBECONFIG} names; push one and name it in {IMAGE}");
        };
        let output = Command::new("nsenter")
            .args(["--target", &reach.process.to_string(), "--mount", "--net", "--pid", "--ipc", "--uts"])
            .args(["ctr", "--namespace", "k8s.io", "images"])
            .args(arguments)
            .stdin(input)
            .output()
            .await
            .context("nsenter does not start")?;
        if !output.status.success() {
            bail!("ctr failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr));
        }
        Ok(output.stdout)
    }
}

/// Other programs are another image.
fn fingerprint_of(binaries: &Path) -> Result<String> {
    let mut parts = Vec::new();
    for program in image::PROGRAMS {
        let path = binaries.join(program);
        parts.push(fs::read(&path).with_context(|| format!("there is no {}", path.display()))?);
    }
    Ok(fingerprint(parts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_programs_are_another_image() {
        let folder = tempfile::tempdir().unwrap();
        for program in image::PROGRAMS {
            fs::write(folder.path().join(program), program).unwrap();
        }
        let before = fingerprint_of(folder.path()).unwrap();
        assert_eq!(fingerprint_of(folder.path()).unwrap(), before);
        fs::write(folder.path().join("operator"), "newer").unwrap();
        assert_ne!(fingerprint_of(folder.path()).unwrap(), before);
        fs::remove_file(folder.path().join("operator")).unwrap();
        assert!(fingerprint_of(folder.path()).unwrap_err().to_string().contains("operator"));
    }
}
