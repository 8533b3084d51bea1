//! Real clients, honest and not, against a gateway on loopback that serves files in memory.

#[cfg(test)]
mod clients;
#[cfg(test)]
mod openssh;
#[cfg(test)]
mod served;
