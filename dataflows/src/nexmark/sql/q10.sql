-- Bids filed by day and minute.
SELECT
    epoch_ms(date_trunc('day', make_timestamp_ms(date_time))) AS day,
    epoch_ms(date_trunc('minute', make_timestamp_ms(date_time))) AS minute,
    auction, bidder, price, date_time, extra
FROM bid
