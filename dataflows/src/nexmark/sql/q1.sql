-- Prices in euros.
SELECT auction, bidder, CAST(0.908 * price * 1000 AS BIGINT) AS price_millis, date_time, extra FROM bid
