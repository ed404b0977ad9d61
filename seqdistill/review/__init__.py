"""Review by people: a page and a spreadsheet over what filter wrote. A tool beside the stages; it imports none of them."""
