-- Who sells in three states in category 10.
SELECT auction.id, name, city, state
FROM auction JOIN person ON auction.seller = person.id
WHERE category = 10 AND state IN ('OR', 'ID', 'CA')
