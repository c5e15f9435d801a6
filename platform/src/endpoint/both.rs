//! One endpoint over both transports.

use super::{Endpoint, Listen};
use crate::World;
use crate::identity::Identity;
use posthouse_protocol::problem::{Code, Problem};
use std::sync::Arc;

pub(super) async fn bind(_: World, _: Option<Arc<Identity>>, _: Listen) -> Result<Arc<dyn Endpoint>, Problem> {
    Err(Problem::new(Code::InsideFailed).cause("no transport is built in yet"))
}
