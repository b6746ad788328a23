"""One ComponentResource per entity. They write down what ``infra/plan.py`` decided; there are no decisions here."""
