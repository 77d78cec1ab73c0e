//! `init`: a saga and a services file to begin with.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use serde_json::json;

use super::code::{Code, Stop};
use super::output;

/// Arguments of `init`.
#[derive(Args, Debug)]
pub(super) struct Init {
    /// Folder to write to; made if missing
    #[arg(default_value = "sagas", value_name = "DIR")]
    folder: PathBuf,
}

const FILES: [(&str, &str); 2] = [
    (
        "order.yaml",
        "\
# yaml-language-server: $schema=http://localhost:7600/schema/saga.json
id: shop.order.v1
trigger: order.placed          # the event that starts it

steps:
  - name: reserve_stock
    call: stock-svc:/reserve
    compensate: stock-svc:/release   # called if a later step fails for good

  - name: charge_card
    call: card-svc:/charge
    compensate: card-svc:/refund

retry:
  attempts: 3
  backoffMs: 1000
timeoutMs: 30000
",
    ),
    (
        "services.yaml",
        "\
# yaml-language-server: $schema=http://localhost:7600/schema/services.json
id: shop-services
services:
  # `allow` permits addresses that are loopback or private.
  stock-svc: {url: \"http://127.0.0.1:9101\", allow: [127.0.0.0/8]}
  card-svc: {url: \"http://127.0.0.1:9102\", allow: [127.0.0.0/8]}
",
    ),
];

/// Writes the files, or nothing if one of them is there.
pub(super) fn init(arguments: &Init, as_json: bool) -> Result<Code> {
    let folder = &arguments.folder;
    let paths = FILES.map(|(name, _)| folder.join(name));
    if let Some(there) = paths.iter().find(|path| path.symlink_metadata().is_ok()) {
        return Err(Stop::new(Code::Conflict, format!("{} is there already, and nothing is overwritten", there.display())).into());
    }
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    for (path, (_, text)) in paths.iter().zip(FILES) {
        write_new(path, text)?;
    }
    if as_json {
        output::json(&json!({"files": paths}))?;
        return Ok(Code::Ok);
    }
    for path in &paths {
        output::line(path.display())?;
    }
    let folder = folder.display();
    output::talk(format_args!(
        "next: hms-orch deploy {folder}\n      hms-orch up\n      hms-bus publish order.placed --data '{{\"orderId\": 1}}' --wait"
    ));
    Ok(Code::Ok)
}

fn write_new(path: &Path, text: &str) -> Result<()> {
    let written = OpenOptions::new().write(true).create_new(true).open(path).and_then(|mut file| file.write_all(text.as_bytes()));
    match written {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            Err(Stop::new(Code::Conflict, format!("{} is there already, and nothing is overwritten", path.display())).into())
        }
        written => written.with_context(|| format!("write {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use crate::core::definition_file;

    #[test]
    fn it_shares_no_service_with_the_demo() {
        for name in crate::demo::NAMES {
            assert!(super::FILES.iter().all(|(_, text)| !text.contains(name)), "{name}: one name in two files is refused");
        }
    }

    #[test]
    fn what_it_writes_is_valid_and_without_warnings() {
        for (name, text) in super::FILES {
            match definition_file::read(name, text) {
                Ok(definition_file::File::Saga(_, warnings, _) | definition_file::File::Services(_, warnings, _)) => {
                    assert!(warnings.is_empty(), "{warnings:?}");
                }
                Err(problems) => panic!("{problems:?}"),
            }
        }
    }
}
