-- Bids of some prices in euros, with the time of day and how many letters c there are.
SELECT
    auction, bidder, CAST(0.908 * price * 1000 AS BIGINT) AS price_millis,
    CASE
        WHEN hour(make_timestamp_ms(date_time)) BETWEEN 8 AND 18 THEN 'dayTime'
        WHEN hour(make_timestamp_ms(date_time)) <= 6 OR hour(make_timestamp_ms(date_time)) >= 20 THEN 'nightTime'
        ELSE 'otherTime'
    END AS bid_time_type,
    date_time, extra, len(extra) - len(replace(extra, 'c', '')) AS c_counts
FROM bid
WHERE 0.908 * price > 1000000 AND 0.908 * price < 50000000
