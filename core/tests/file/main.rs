//! What only the store in files promises: nothing is lost or wrong after a crash, a cut, a flipped bit, a full disk.

mod damage;
mod disk;
mod fixture;
mod processes;
mod status_files;
