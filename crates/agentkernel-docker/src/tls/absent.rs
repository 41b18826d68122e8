//! In place of TLS where it is not built: there is none of it.
use std::{error::Error as StdError, io};

use agentkernel_core::{Error, ErrorKind, Result};
use tokio::net::TcpStream;

use super::{TlsFiles, Trouble};
use crate::{address::Stream, endpoint::TUNNEL};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tls {}

impl Tls {
    pub(crate) fn prepare(_files: Option<TlsFiles>, _host: &str) -> Result<Self> {
        Err(Error::new(ErrorKind::Unsupported, "find the engine", "TLS is not spoken by this build")
            .with_hint(format!("build with the feature `tls`, or {TUNNEL}")))
    }

    pub(crate) async fn over(&self, _stream: TcpStream) -> io::Result<Box<dyn Stream>> {
        match *self {}
    }

    pub(crate) fn is_anonymous(&self) -> bool {
        match *self {}
    }
}

pub(crate) fn trouble(_error: &(dyn StdError + 'static)) -> Option<Trouble> {
    None
}
