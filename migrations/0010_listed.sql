-- The listed providers in the order of their addresses: the market's first page, whatever the number of those that left.
create index provider_listed on provider (address) where listed;
