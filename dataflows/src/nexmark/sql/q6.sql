-- Mean of the last ten winning bids, by seller.
WITH winning AS (
    SELECT seller, auction.id, bid.date_time, price
    FROM auction JOIN bid ON auction.id = bid.auction AND bid.date_time BETWEEN auction.date_time AND expires
    QUALIFY row_number() OVER (PARTITION BY auction.id ORDER BY price DESC, bid.date_time) = 1
), latest AS (
    SELECT seller, price FROM winning
    QUALIFY row_number() OVER (PARTITION BY seller ORDER BY date_time DESC, price DESC, id DESC) <= 10
)
SELECT seller, CAST(sum(price) // count(*) AS BIGINT) AS avg_price FROM latest GROUP BY seller
