//! Writes the definitions into the `yaml` folder of this crate and into the chart: `cargo run -p crds --example generate`.

use std::error::Error;
use std::fs;
use std::path::Path;

use crds::{Kind, yaml};

fn main() -> Result<(), Box<dyn Error>> {
    for folder in ["yaml", "../charts/harborhook/files/crds"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        fs::create_dir_all(&folder)?;
        for kind in Kind::ALL {
            fs::write(folder.join(yaml::file_name(kind)), yaml::definition_yaml(kind)?)?;
        }
    }
    Ok(())
}
