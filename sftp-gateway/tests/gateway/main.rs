//! Real clients, honest and not, against a gateway on loopback that serves files in memory.

#[cfg(test)]
mod attempts;
#[cfg(test)]
mod audit;
#[cfg(test)]
mod clients;
#[cfg(test)]
mod engine;
#[cfg(test)]
mod foreign;
#[cfg(test)]
mod libraries;
#[cfg(test)]
mod lifetime;
#[cfg(test)]
mod openssh;
#[cfg(test)]
mod served;
