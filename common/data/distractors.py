"""Words of synthetic notes that are no entity, and sentences that mislead.

Slots of a template are filled from here: procedures, anatomy, laboratory values, devices, clinics,
relatives, doses. All devices are invented. The notation is that of `common.data.lexicon` and
`common.data.note_styles`.
"""

from collections.abc import Mapping

from common.data.lexicon import items
from common.data.note_styles import lines

KINDS_OF_WORDS = ("procedure", "site", "lab", "device")


def words(specialty: str, kind: str) -> tuple[str, ...]:
    """Words that are no entity, of one of `KINDS_OF_WORDS`."""
    return items(_WORDS[kind][specialty])


TRAPS = {
    "shared": lines("""Iron 4, so <m:iron> {dose} {freq} was restarted.
        Potassium 2.9, replaced with <m:potassium> {dose}.
        Discharge planned for Friday if <s:discharge> from the wound dries up.
        Fit for work from Monday, no <s:falls> since {when}.
        A fall in creatinine was seen, <s:falls> were not reported.
        Diabetes nurse and pain team informed, <s:back pain> easing.
        Warm clothing advised, cold packs to {site}, <d:cold> going round the ward.
        Seen in asthma clinic by the respiratory team, inhaler technique poor.
        {he} was anxious about {procedure}; <d:anxiety> itself is long standing."""),
    "cardiac": lines("""ST depression in V4-V6, mood fine, no <d:depression>.
        Stroke volume {n} ml, no previous <d:stroke>.
        Shock delivered by ICD x {n}, not in <d:shock>.
        Heart failure nurse to ring, MI protocol explained, AF leaflet given.
        PE: {site} NAD. CTPA -ve for <d:PE>.
        Digoxin level 2.3, hold <m:digoxin> {n}/7."""),
    "oncology": lines("""The cancer nurse and the melanoma clinic have {his} details.
        CA 125 was normal, which argues against <d:ovarian adenocarcinoma>.
        The lymphoma trial is closed, and {he} preferred <m:rituximab> alone.
        Her2 status is pending; PD on the scan report stands for progression.
        The methotrexate level was high, so <m:methotrexate> was delayed.
        A cold cap was offered against <s:hair loss>."""),
    "neuro": lines("""MS: alert, kempt, speech normal; scan without signs of <d:MS>.
        Lithium level 0.4, so <m:lithium> {dose} was increased.
        Epilepsy nurse informed, seizure diary kept, no <s:seizures> entered.
        Fit and well as a child, first <s:fits> at school.
        Panic button installed at home, <s:panic attacks> less frequent.
        Depression scale {n}/27, <d:depression> in remission."""),
    "infectious": lines("""tb clinic letter seen, quantiferon neg, no <d:tb>
        cold hands and feet, says just a <d:cold>
        sepsis bundle done, <d:sepsis> unlikely
        gent level 0.8, next <m:gent> tonight
        hiv test offered, covid swab neg, <d:flu> not excluded
        wound discharge nurse booked, <s:discharge> less"""),
}
"""Sentences whose words are entities in one place and none in another."""

FILLERS = {
    "sev": lines("mild\nsevere\nworsening\nmoderate\nmarked\nmild\nnew"),
    "when": lines(
        "yesterday\nlast week\nlast month\nlast Monday\nlast spring\nlast July\nlast winter"
    ),
    "unit": lines(
        "stroke unit\npain clinic\ndiabetes clinic\nday ward\nheart failure team\nGP\nED"
    ),
    "relative": lines(
        "mother\nfather\nsister\nbrother\ndaughter\nson\naunt\npartner\nuncle\ncousin"
    ),
    "companion": lines("partner\nsister\nbrother\ncousin\nneighbour\nfriend\nflatmate"),
    "dose": lines("5 mg\n2.5 mg\n10 mg\n75 mg\n500 mg\n1 g\n40 mg\n20 mg\n0.5 mg\n100 mg\n250 mg"),
    "dr": lines("K\nR. O\nT\nM. A\nE\nS"),
    "bp": lines("132/78\n98/60\n165/94\n120/70\n141/88"),
}

NUMBERS = {
    "n": (2, 9),
    "year": (2004, 2023),
    "relage": (41, 88),
    "hr": (52, 128),
    "sats": (89, 99),
    "temp": (364, 396),
}
"""Slots filled with a number, both bounds included; `temp` is in tenths of a degree."""


_WORDS: Mapping[str, Mapping[str, str]] = {
    "procedure": {
        "shared": """chest X-ray; ultrasound; physiotherapy; blood cultures; urine dip; flu
            vaccination; dietitian review; hip replacement; hernia repair; cholecystectomy;
            appendicectomy""",
        "cardiac": """coronary angiography; PCI; CABG; echocardiogram; TOE; DC cardioversion; AV
            node ablation; pacemaker insertion; ICD check; 24-hour tape; exercise test;
            valvuloplasty; carotid Doppler""",
        "oncology": """mastectomy; core biopsy; staging CT; PET scan; lobectomy; radiotherapy;
            bronchoscopy; sentinel node biopsy; stem cell transplant; colonoscopy; port
            insertion; wide local excision""",
        "neuro": """lumbar puncture; MRI head; EEG; nerve conduction studies; thrombectomy;
            nerve block; ECT; CBT; cognitive testing; laminectomy; neurofeedback;
            ventriculoperitoneal shunt; DaT scan""",
        "infectious": """incision and drainage; sputum culture; throat swab; debridement;
            contact tracing; wound toilet; joint aspiration; tonsillectomy; stool culture; PICC
            line; skin scrapings""",
    },
    "site": {
        "shared": "abdomen; spine; skin; knees; liver edge; left foot; thyroid; lungs; pulses",
        "cardiac": """left ventricle; LAD; aortic root; mitral valve; apex beat; carotids;
            femoral access site""",
        "oncology": """mediastinum; axilla; right lobe of liver; sternum; port site; surgical
            bed; L3 vertebra""",
        "neuro": """cranial nerves; left hippocampus; corpus callosum; optic discs; plantars;
            gait; tone""",
        "infectious": """tonsils; tympanic membrane; right lower lobe; inguinal region; wound
            edges; sclerae""",
    },
    "lab": {
        "shared": """Hb 112; sodium 133; potassium 4.1; creatinine 98; CRP 14; glucose 7.2;
            HbA1c 58; iron 6""",
        "cardiac": """troponin 12; BNP 840; digoxin level 1.1; EF 35%; INR 2.4; magnesium 0.8;
            heparin level 0.4""",
        "oncology": """CA 15-3 42; PSA 6.5; neutrophils 0.9; LDH 410; ECOG 1; calcium 2.9;
            methotrexate level 0.1""",
        "neuro": """MMSE 24/30; lithium level 0.8; CK 210; CSF protein 0.6; valproate level 61;
            PHQ-9 17; GCS 15""",
        "infectious": """WCC 16.2; lactate 1.9; CRP 188; vancomycin level 14; viral load 40;
            NEWS 3; albumin 29""",
    },
    "device": {
        "shared": "Aerolyn spacer; Medlok dressing; walking frame; CPAP; Glucotrak meter",
        "cardiac": "Ventrax valve; Cordalis lead; Micrava pacemaker; Stentor stent; LifeVest",
        "oncology": "Portalis port; Hickman line; Oncopump; Paxicool cap; Sternalux brace",
        "neuro": "Neuralis stimulator; Cerevane shunt; cervical collar; Somnolog diary; TENS",
        "infectious": "Vacuderm pump; Septaguard catheter; PICC; Pulmoflo mask; Otowick",
    },
}
