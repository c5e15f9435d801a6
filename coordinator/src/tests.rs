//! A coordinator as it runs, with nodes that speak to it over real sockets but hold no data.

mod api;
mod ledger;
mod membership;
mod policy;
mod scene;
