//! Workers against real servers of the other backends on loopback: fake-gcs-server, Azurite, nginx, and a small Hub of our own
//! that the Hub's own client library reads too. Needs no cluster.

#[path = "../storage/place.rs"]
mod place;
#[path = "../servers/mod.rs"]
mod servers;

mod azure;
mod gcs;
mod hub;
mod identity;
mod support;
mod web;
