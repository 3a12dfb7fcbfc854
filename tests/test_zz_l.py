from tests.untrained import untrained
def test_x(composed):
    for w in (("variant=lstm",),("dataset=reversal","variant=lstm"),("dataset=mqar","variant=lstm"),("dataset=pronoun","variant=lstm_attention")):
        try:
            r=untrained(composed("model.num_layers=2","model.d_model=16","dataset.num_train=20","dataset.num_validation=20","dataset.num_test=20",*w))
            t="d a c b" if "dataset=reversal" in w else r.dataset.tokens[5]
            print(w,type(r.model).__name__,[p.source for p in r.mixing(t)])
        except Exception as e: print(w,repr(e)[:200])
    assert 0
