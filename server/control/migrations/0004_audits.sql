-- When all references of the vault were last counted again, nanoseconds since 1970.
ALTER TABLE vaults ADD COLUMN audited_ns BIGINT;
