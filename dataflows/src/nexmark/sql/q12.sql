-- Bids of a bidder, by window of ten seconds.
SELECT bidder, date_time // 10000 * 10000 AS start, count(*) AS bids FROM bid GROUP BY ALL
