//! Writes the definitions into the `yaml` folder of this crate: `cargo run -p crds --example generate`.

use std::error::Error;
use std::fs;
use std::path::Path;

use crds::{Kind, yaml};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("yaml");
    fs::create_dir_all(&folder)?;
    for kind in Kind::ALL {
        fs::write(folder.join(yaml::file_name(kind)), yaml::definition_yaml(kind)?)?;
    }
    Ok(())
}
